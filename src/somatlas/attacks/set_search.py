"""Searches sets of directions out of several pools, for little drift as well as for success."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from somatlas.ablation import Mode, Projection
from somatlas.attacks.attack import Ablated, Outcome, Rounds
from somatlas.attacks.pools import Pool
from somatlas.errors import InputError
from somatlas.measures.drift import ranked
from somatlas.searches.space import SubsetSpace
from somatlas.searches.surrogate import Surrogate, expected_improvement, span_features

_STARTUP = 2  # rounds before a surrogate proposes
_POOL = 256  # sets that expected improvement is computed of
LEAST_KL = 0.01  # nats: below it drift is not worth telling apart


class Set(NamedTuple):
    """Ranks of a pool, by its place, and how they are ablated."""

    place: int
    ranks: tuple[int, ...]
    mode: Mode


class SetSearch:
    """Rounds of one set for each number of directions.

    pools : the most promising first. ks : how many directions, those tried in one round. The first
    round takes the first ranks of the first pool, the second draws at random. In turn rounds ablate
    one direction after another, and the span: what the first leaves the second does not. From the
    third each set is the one of highest expected improvement (`somatlas.searches.surrogate`) of a
    mixture of success and of the logarithm of drift, whose weights are drawn anew for each: so
    proposals spread along the frontier.
    """

    def __init__(self, family: str, pools: Sequence[Pool], ks: Sequence[int], seed: int) -> None:
        self.family, self.pools, self.seed = family, list(pools), seed
        largest = max(len(pool.vectors) for pool in self.pools)
        self.ks = [k for k in ks if k <= largest]
        if not self.ks:
            raise InputError(
                f"attack {family!r} is to ablate {min(ks)} directions together, and there are "
                f"{largest} at most: lower its ks"
            )
        starts = np.cumsum([0, *(len(pool.vectors) for pool in self.pools)])
        self._starts = starts[:-1].tolist()

    def rounds(self) -> Rounds:
        """Rounds of new sets until there are none."""
        tried: list[Set] = []
        outcomes: list[Outcome] = []
        number = 0
        while True:
            found: list[Set] = []
            for k in self.ks:
                rng = random.Random(f"{self.seed}:{number}:{k}")
                taken = {*tried, *found}
                new = self._new(k, number, rng, taken, tried, outcomes)
                if new is not None:
                    found.append(new)
            if not found:
                return
            outcomes += yield [self.attempt(one) for one in found]
            tried += found
            number += 1

    def attempt(self, one: Set) -> Ablated:
        """The ablation of a set."""
        pool, ranks = self.pools[one.place], list(one.ranks)
        span = ", span" if one.mode == "subspace" else ""
        return Ablated(
            self.family,
            f"{pool.name}, ranks {' '.join(map(str, ranks))}{span}",
            len(ranks),
            {**pool.about, "ranks": ranks, "mode": one.mode},
            Projection(pool.vectors[ranks], one.mode),
        )

    def _new(
        self,
        k: int,
        number: int,
        rng: random.Random,
        taken: set[Set],
        tried: Sequence[Set],
        outcomes: Sequence[Outcome],
    ) -> Set | None:
        mode: Mode = "subspace" if k > 1 and number % 2 else "sequential"
        if number == 0:
            return Set(self._places(k)[0], tuple(range(k)), mode)
        drawn = self._drawn(k, mode, rng, taken, 1 if number < _STARTUP else _POOL)
        if number < _STARTUP or len(drawn) < 2:
            return drawn[0] if drawn else None
        values = mixed(outcomes, rng.choice((0.0, 0.25, 0.5)))
        best = max(range(len(tried)), key=values.__getitem__)
        drawn += self._near(k, mode, tried[best], rng, {*taken, *drawn})
        surrogate = Surrogate(self._features, [self._flat(one) for one in tried], values)
        mean, deviation = surrogate.predict([self._flat(one) for one in drawn])
        return drawn[int(expected_improvement(mean, deviation, max(values)).argmax())]

    def _places(self, k: int) -> list[int]:
        """The pools that have k directions."""
        return [i for i, pool in enumerate(self.pools) if len(pool.vectors) >= k]

    def _drawn(
        self, k: int, mode: Mode, rng: random.Random, taken: set[Set], count: int
    ) -> list[Set]:
        """Different sets that are not taken, at random; all there are where they are few."""
        places = self._places(k)
        spaces = {place: SubsetSpace(len(self.pools[place].vectors), k) for place in places}
        if sum(space.size for space in spaces.values()) <= 2 * count + len(taken):
            every = [Set(place, p, mode) for place in places for p in spaces[place].points()]
            left = [one for one in every if one not in taken]
            rng.shuffle(left)
            return left[:count]
        found: dict[Set, None] = {}
        while len(found) < count:
            place = rng.choice(places)
            one = Set(place, spaces[place].draw(rng), mode)
            if one not in taken:
                found[one] = None
        return list(found)

    def _near(
        self, k: int, mode: Mode, best: Set, rng: random.Random, taken: set[Set]
    ) -> list[Set]:
        """Sets of k that differ from the best so far in one rank, or are it with ranks fewer or
        more."""
        place, ranks, _ = best
        size = len(self.pools[place].vectors)
        if size < k:
            return []
        others = [rank for rank in range(size) if rank not in ranks]
        start = rng.sample(ranks, k) if len(ranks) >= k else [*ranks]
        if len(start) < k:
            start += rng.sample(others, k - len(start))
        point = tuple(sorted(start))
        near = [point, *SubsetSpace(size, k).neighbours(point)]
        found = [Set(place, one, mode) for one in dict.fromkeys(near)]
        return [one for one in found if one not in taken]

    def _flat(self, one: Set) -> tuple[int, ...]:
        return tuple(self._starts[one.place] + rank for rank in one.ranks)

    @cached_property
    def _features(self) -> NDArray[np.float64]:
        vectors = [pool.vectors.double().numpy() for pool in self.pools]
        return span_features(np.concatenate(vectors))


def mixed(outcomes: Sequence[Outcome], drift: float) -> list[float]:
    """One number an outcome, the higher the better: ASR, less a share of log drift that is scaled
    to 1 between 0.01 and 1 nats."""
    scale = -math.log(LEAST_KL)
    shares = [math.log(max(ranked(o.kl), LEAST_KL) / LEAST_KL) / scale for o in outcomes]
    return [o.asr - drift * share for o, share in zip(outcomes, shares, strict=True)]
