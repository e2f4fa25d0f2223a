"""What tells answers from babble and from talk of something else: one check for search and test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from somatlas.models.generation import generate
from somatlas.judges import CoherenceCheck
from somatlas.completions.kept import KeptReplies
from somatlas.prompts.prompt_set import Prompt, Split, spread, texts
from somatlas.completions.cache import ReplyStore, model_key
from somatlas.models.reply import Reply
from somatlas.runs.folder import Run

_CALIBRATION_PROMPTS = 64  # harmless val prompts
_FEWEST = 3  # val prompts of a side; with fewer those of train are taken too
_STRANGERS = 8  # harmful val prompts that replies are tried behind, of which a reply needs two


def coherence_check(run: Run) -> CoherenceCheck | None:
    """The check calibrated on the unchanged model's greedy replies to harmless val prompts, as long
    as the test's; None where the run wants none.

    Raises InputError where there are too few of them.
    """
    config = run.config
    if config.coherence == "off":
        return None
    prompts = texts(spread(_unseen(run.prompts.negative), _CALIBRATION_PROMPTS))
    key = {**model_key(run.lm, None, prompts), "tokens": config.test_tokens}

    def make(kept: KeptReplies) -> list[Reply]:
        return generate(
            run.lm,
            prompts,
            max_new_tokens=config.test_tokens,
            batch_size=config.batch_size,
            done=kept.known(),
            keep=kept.keep,
        )

    replies = ReplyStore(run.folder.parent / ".replies").get(key, prompts, make)
    opened = run.lm.opens_reasoning(prompts[0])
    return CoherenceCheck.calibrated(
        run.lm,
        prompts,
        [run.lm.part_reasoning(reply, opened=opened).answer for reply in replies],
        texts(spread(_unseen(run.prompts.positive), _STRANGERS)),
    )


def _unseen(side: Mapping[Split, Sequence[Prompt]]) -> Sequence[Prompt]:
    """A side's val prompts; where they are very few, its train prompts too: either way the test's
    prompts have no part in the check."""
    return side["val"] if len(side["val"]) >= _FEWEST else [*side["val"], *side["train"]]
