"""The points of the search: k distinct ranks out of the candidates."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from optuna.distributions import BaseDistribution, IntDistribution

from somatlas.errors import InputError

Ranks = tuple[int, ...]


@dataclass(frozen=True)
class SubsetSpace:
    """All ways to take k of the ranks 0 .. candidates - 1, as sets or as ordered tuples."""

    candidates: int
    k: int
    ordered: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.k <= self.candidates:
            raise InputError(
                f"k = {self.k} directions cannot be taken from {self.candidates} candidates: "
                "lower --k or use a larger grid"
            )

    @property
    def size(self) -> int:
        """How many points the space has."""
        count = math.perm if self.ordered else math.comb
        return count(self.candidates, self.k)

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        """The space as Optuna sees it, before the ranks of a trial are made distinct."""
        return {f"rank_{i}": IntDistribution(0, self.candidates - 1) for i in range(self.k)}

    def canonical(self, params: Mapping[str, Any]) -> Ranks | None:
        """The point that params name, or None where a rank occurs twice or is missing."""
        ranks = [int(params[name]) for name in self.distributions if name in params]
        if len(set(ranks)) < self.k:
            return None
        return tuple(ranks if self.ordered else sorted(ranks))

    def points(self) -> Iterator[Ranks]:
        """Every point."""
        choose = itertools.permutations if self.ordered else itertools.combinations
        return choose(range(self.candidates), self.k)

    def draw(self, rng: random.Random) -> Ranks:
        """A uniformly random point."""
        ranks = rng.sample(range(self.candidates), self.k)
        return tuple(ranks if self.ordered else sorted(ranks))

    def neighbours(self, ranks: Ranks) -> Iterator[Ranks]:
        """The points that differ from `ranks` in one rank."""
        for place, new in itertools.product(range(self.k), range(self.candidates)):
            if new not in ranks:
                changed = [*ranks[:place], new, *ranks[place + 1 :]]
                yield tuple(changed if self.ordered else sorted(changed))
