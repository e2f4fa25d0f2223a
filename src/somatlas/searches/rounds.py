"""Rounds: what a trial may know when its point is proposed, however many are evaluated at a time.

Trials have places, 0, 1, 2, ... A round is `size` places. The point of a place is decided by the
outcomes of all earlier rounds and by the points of its own round that stand before it, whether
those have outcomes yet or not: so neither lanes nor workers, nor who was faster, change a search.
A place whose trial was interrupted is free again, and the same point is proposed for it. Reads
trials alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from optuna.trial import FrozenTrial, TrialState

from somatlas.searches.space import Ranks, SubsetSpace

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
PLACE = "place"  # user attribute: which of the search's trials it is
SIZE = 4  # trials of a round


@dataclass(frozen=True)
class Standing:
    """What the next trial of a search may know.

    place : the lowest that no trial holds. earlier : the finished trials of the rounds before, in
    order. beside : the trials of its own round that stand before it, in order. taken : points that
    any trial holds.
    """

    place: int
    earlier: list[FrozenTrial]
    beside: list[FrozenTrial]
    taken: set[Ranks]


def standing(trials: Sequence[FrozenTrial], space: SubsetSpace, size: int) -> Standing:
    """How a search stands for one more trial, which is not among `trials` itself."""
    held = [t for t in trials if t.state in (*FINISHED, TrialState.RUNNING)]
    at = {t.user_attrs[PLACE]: t for t in held if PLACE in t.user_attrs}
    place = next(p for p in range(len(at) + 1) if p not in at)
    start = first_of_round(place, size)
    points = [space.canonical(t.params) for t in at.values()]
    return Standing(
        place,
        [at[p] for p in range(start)],
        [at[p] for p in range(start, place)],
        {p for p in points if p is not None},
    )


def first_of_round(place: int, size: int) -> int:
    """The first place of a place's round."""
    return place - place % size


def by_place(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Trials in the order of their places."""
    return sorted(trials, key=lambda t: int(t.user_attrs[PLACE]))
