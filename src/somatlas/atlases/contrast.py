"""Which harmless prompts the harmful ones are contrasted with: matched, shuffled, general."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from somatlas.prompts.prompt_set import Prompt, spread

FEWEST = 8  # pairs in a half; with fewer a mean says little


@dataclass(frozen=True)
class Side:
    """A harmless side: indices of harmful train prompts, and of the harmless ones they are
    contrasted with; None stands for general prompts, as many as `size`."""

    name: str
    harmful: Sequence[int]
    harmless: Sequence[int] | None
    size: int


def contrast_sides(
    positive: Sequence[Prompt], negative: Sequence[Prompt], seed: int
) -> tuple[list[Side], str]:
    """The sides that prompts allow, all with the same harmful prompts, and what is missing why.

    With pairs a random half of the topics (of the pairs, where none has a topic) gives the harmful
    prompts. `matched` are their own partners, `shuffled` the partners of the other half, so that
    neither topic nor wording is theirs, `general` prompts of no form in common. Without pairs the
    harmless side is taken as `given`, and the general one stands beside it.
    """
    partner = {p.pair: i for i, p in enumerate(negative) if p.pair is not None}
    pairs = [(i, partner[p.pair]) for i, p in enumerate(positive) if p.pair in partner]
    topics: dict[str, list[tuple[int, int]]] = {}
    for i, j in pairs:
        own = positive[i]
        topics.setdefault(f"{own.category}\t{own.topic}" if own.topic else f"{i}", []).append(
            (i, j)
        )
    order = list(topics.values())
    random.Random(seed).shuffle(order)
    here, there = ([p for t in half for p in t] for half in (order[::2], order[1::2]))
    size = min(len(here), len(there))
    if size < FEWEST:
        size = min(len(positive), len(negative))
        harmful = spread(range(len(positive)), size)
        lacking = "no pairs" if not pairs else f"only {len(pairs)} pairs"
        return [
            Side("given", harmful, spread(range(len(negative)), size), size),
            Side("general", harmful, None, size),
        ], (
            f"the train prompts have {lacking} of a harmful and a harmless one, so a matched and a "
            "shuffled side cannot be made: the harmless side is taken as given"
        )
    kept = spread(here, size)
    harmful = [i for i, _ in kept]
    return [
        Side("matched", harmful, [j for _, j in kept], size),
        Side("shuffled", harmful, [j for _, j in spread(there, size)], size),
        Side("general", harmful, None, size),
    ], ""
