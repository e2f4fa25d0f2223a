"""A prompt set of prompts at hand, drawn into splits."""

from __future__ import annotations

from collections.abc import Iterable

from somatlas.arguments import check_whole, described
from somatlas.errors import InputError
from somatlas.prompts.prompt_set import SPLITS, Prompt, PromptSet
from somatlas.prompts.splits import MIN_FOR_SPLITS, check_splits, draw, sided


def drawn_set(
    harmful: Iterable[str | Prompt],
    harmless: Iterable[str | Prompt],
    borderline: Iterable[str | Prompt],
    seed: int,
) -> PromptSet:
    """`PromptSet.of`."""
    sides = {"harmful": harmful, "harmless": harmless, "borderline": borderline}
    check_whole("seed", seed, 0)
    prompts = {name: _listed(name, side) for name, side in sides.items()}
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
    apart = {
        name: sided(name, side, SPLITS if name != "borderline" else ("test",))
        for name, side in prompts.items()
        if side
    }
    splits = {"borderline": {}, **draw(apart, seed)}
    for name in ("harmful", "harmless"):
        check_splits(name, apart[name], splits[name])
    notes = [note for side in apart.values() for note in side.notes]
    if texts["borderline"] and not splits["borderline"]["test"]:
        notes.append(
            f"test has none of the {len(texts['borderline'])} borderline prompts: give "
            f"{MIN_FOR_SPLITS} or more, in groups of a few, or name the split of each"
        )
    return PromptSet(splits["harmful"], splits["harmless"], splits["borderline"], tuple(notes))


def _listed(name: str, side: Iterable[str | Prompt]) -> list[Prompt]:
    if isinstance(side, str) or not isinstance(side, Iterable):
        raise InputError(f"{name} must be a list of prompts, not {described(side)}")
    found = [one if isinstance(one, Prompt) else Prompt(one) for one in side]
    for place, prompt in enumerate(found):
        if not prompt.text.strip():
            raise InputError(f"{name} prompt {place} is blank: leave it out")
    return found
