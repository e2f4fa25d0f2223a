"""What tells answers from babble and from talk of something else: one check for search and test."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from somatlas.completions.cache import ReplyStore, model_key
from somatlas.completions.kept import KeptReplies
from somatlas.judges import CoherenceCheck
from somatlas.models.language_model import LanguageModel
from somatlas.models.reply import Reply
from somatlas.prompts import PromptSet
from somatlas.prompts.prompt_set import Prompt, Split, spread, texts

_CALIBRATION_PROMPTS = 64  # harmless val prompts
_FEWEST = 3  # val prompts of a side; with fewer those of train are taken too
_STRANGERS = 8  # harmful val prompts that replies are tried behind, of which a reply needs two


def answer_check(
    lm: LanguageModel, prompts: PromptSet, store: ReplyStore, *, tokens: int, batch_size: int
) -> CoherenceCheck:
    """The check calibrated on the unchanged model's greedy replies to harmless val prompts.

    tokens : of a reply, as many as of a test's. Raises InputError where there are too few prompts.
    """
    asked = texts(spread(_unseen(prompts.negative), _CALIBRATION_PROMPTS))
    key = {**model_key(lm, None, asked), "tokens": tokens}

    def keeping(make: Callable[[KeptReplies], list[Reply]]) -> list[Reply]:
        return store.get(key, asked, make)

    return CoherenceCheck.of_model(
        lm,
        asked,
        strangers=spread(_unseen(prompts.positive), _STRANGERS),
        tokens=tokens,
        batch_size=batch_size,
        keeping=keeping,
    )


def _unseen(side: Mapping[Split, Sequence[Prompt]]) -> Sequence[Prompt]:
    """A side's val prompts; where they are very few, its train prompts too: either way the test's
    prompts have no part in the check."""
    return side["val"] if len(side["val"]) >= _FEWEST else [*side["val"], *side["train"]]
