"""What tells answers from babble and from talk of something else: one check for search and test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from somatlas.fleet import Work
from somatlas.judges import CoherenceCheck
from somatlas.progress import Advance, ignore
from somatlas.prompts.prompt_set import Prompt, PromptSet, Split, spread, texts
from somatlas.runs.dealt_replies import Wanted, dealt_replies
from somatlas.runs.folder import Run

_CALIBRATION_PROMPTS = 64  # harmless val prompts
_FEWEST = 3  # val prompts of a side; with fewer those of train are taken too
_STRANGERS = 8  # harmful val prompts that replies are tried behind, of which a reply needs two


def check_record(run: Run) -> Mapping[str, Any] | None:
    """What the run's check of answers is made of (`CoherenceCheck.record`), calibrated once for
    search, test and atlas; None where the run wants none.

    It is calibrated on the unchanged model's greedy replies to harmless val prompts, as long as a
    test's. Raises InputError where there are too few prompts.
    """
    if run.config.coherence == "off":
        return None
    if run.check_record is None:
        asked = calibration_prompts(run.prompts)
        wanted = Wanted(None, run.config.system, asked)
        (said,) = dealt_replies(run, [wanted], None, ignore)
        answers = [one.answer for one in said]
        work = run.fleet.prepared(calibration_work, (asked, answers))
        run.check_record = work.one(None)
    return run.check_record


def calibration_work(run: Run, of: tuple[list[str], list[str]]) -> Work[None, Mapping[str, Any]]:
    """The record of the check that answers to prompts calibrate."""
    prompts, answers = of
    strangers = strangers_of(run.prompts)

    def work(items: Sequence[None], _advance: Advance) -> list[Mapping[str, Any]]:
        check = CoherenceCheck.calibrated(run.lm, prompts, answers, strangers)
        return [check.record for _ in items]

    return work


def calibration_prompts(prompts: PromptSet) -> list[str]:
    """The harmless prompts whose answers calibrate the check."""
    return texts(spread(_unseen(prompts.negative), _CALIBRATION_PROMPTS))


def strangers_of(prompts: PromptSet) -> list[str]:
    """The harmful prompts that replies are tried behind."""
    return texts(spread(_unseen(prompts.positive), _STRANGERS))


def _unseen(side: Mapping[Split, Sequence[Prompt]]) -> Sequence[Prompt]:
    """A side's val prompts; where they are very few, its train prompts too: either way the test's
    prompts have no part in the check."""
    return side["val"] if len(side["val"]) >= _FEWEST else [*side["val"], *side["train"]]
