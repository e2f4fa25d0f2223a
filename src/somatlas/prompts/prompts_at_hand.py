"""A prompt set of prompts at hand, drawn into splits."""

from __future__ import annotations

from collections.abc import Iterable

from somatlas.errors import InputError
from somatlas.prompts.prompt_set import Prompt, PromptSet
from somatlas.prompts.splits import MIN_FOR_SPLITS, split_prompts


def drawn_set(
    harmful: Iterable[str | Prompt],
    harmless: Iterable[str | Prompt],
    borderline: Iterable[str | Prompt],
    seed: int,
) -> PromptSet:
    """`PromptSet.of`."""
    sides = {"harmful": harmful, "harmless": harmless, "borderline": borderline}
    prompts = {
        name: [one if isinstance(one, Prompt) else Prompt(one) for one in side]
        for name, side in sides.items()
    }
    texts = {name: {prompt.text for prompt in side} for name, side in prompts.items()}
    for name in ("harmful", "harmless"):
        if len(texts[name]) < MIN_FOR_SPLITS:
            raise InputError(
                f"{len(texts[name])} different {name} prompts are too few to split into train, val "
                f"and test: give {MIN_FOR_SPLITS} or more"
            )
    if shared := texts["harmful"] & texts["harmless"]:
        raise InputError(
            f"{len(shared)} prompts are both harmful and harmless (one is {min(shared)!r}): each "
            "belongs to one side"
        )
    positive, negative, sounding = (split_prompts(side, seed) for side in prompts.values())
    return PromptSet(positive, negative, sounding)
