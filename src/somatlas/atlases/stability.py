"""Would another sample, or another seed, have given the same directions?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from somatlas.numerics.geometry import (
    adjusted_rand_index,
    matched_cosines,
    principal_angles,
    span_basis,
    unit_rows,
)

Floats = NDArray[np.float64]

# Directions (r, d), the most important first, and the partition of all rows, or None.
Made = tuple[Floats, NDArray[np.int64] | None]
# Sample of rows and seed -> what is made of them.
Method = Callable[[NDArray[np.int64], int], Made]

SHARE, REPEATS = 0.8, 20
_GONE = 1e-6  # of its length: what is left of a direction that another one spans


def stability(
    method: Method,
    n: int,
    *,
    k: int,
    seed: int = 0,
    repeats: int = REPEATS,
    chosen: Floats | None = None,
    ranks: Sequence[int] | None = None,
    single: Floats | None = None,
) -> dict[str, Any]:
    """Agreement between the directions of pairs of repeats, over samples and over seeds.

    method : makes directions from a sample of n rows. Samples are 80 % of the rows without
    replacement, each with a seed of its own, as somebody who repeats the work would have; seeds use
    all rows.

    Of each repeat k directions count: with `chosen` (k, d), the directions that a search chose,
    those nearest to them, paired one to one; else the first k. Angles are the largest between the
    spans of those; cosines, without sign, the mean over directions paired one to one. `rank_cosine`
    is that of directions of the same rank instead, of the ranks chosen (the first k), where all
    repeats have them: whether a rank names the same direction again.

    single : SD (d,). With it the record has the same once more, `without_sd`, with SD projected out
    of all directions, `chosen` too: what they share beyond it. None where nothing else is left.
    """
    rng = np.random.default_rng(seed)
    samples = [np.sort(rng.permutation(n)[: max(2, round(SHARE * n))]) for _ in range(repeats)]
    every = np.arange(n)
    made = {
        "samples": [method(rows, seed + i) for i, rows in enumerate(samples)],
        "seeds": [method(every, seed + i) for i in range(repeats)],
    }
    asked = list(range(k)) if ranks is None else list(ranks)
    found: dict[str, Any] = {
        which: _agreement(results, k, chosen, asked) for which, results in made.items()
    }
    if single is not None:
        found["without_sd"] = _beyond(single, made, k, chosen, asked)
    kept = {"k": k, "ranks": asked, "nearest": chosen is not None}
    return {**found, "repeats": repeats, "share": SHARE, **kept}


def _beyond(
    single: Floats,
    made: dict[str, list[Made]],
    k: int,
    chosen: Floats | None,
    ranks: Sequence[int],
) -> dict[str, Any] | None:
    """The agreement with SD projected out; None where a direction is SD and nothing else."""
    axis = unit_rows(single)

    def without(vectors: Floats) -> Floats:
        return vectors - np.outer(vectors @ axis, axis)

    def gone(vectors: Floats) -> bool:
        lengths = np.linalg.norm(vectors, axis=1)
        return bool((np.linalg.norm(without(vectors), axis=1) <= _GONE * lengths).any())

    every = [vectors for results in made.values() for vectors, _ in results]
    if any(map(gone, every if chosen is None else [*every, chosen])):
        return None
    nearest = None if chosen is None else without(chosen)
    return {
        which: _agreement([(without(v), None) for v, _ in results], k, nearest, ranks)
        for which, results in made.items()
    }


def _agreement(
    results: Sequence[Made], k: int, chosen: Floats | None, ranks: Sequence[int]
) -> dict[str, dict[str, float] | None]:
    angles, cosines, rand, by_rank = [], [], [], []
    counted = [_nearest(v, chosen) if chosen is not None else v[:k] for v, _ in results]
    for (one, own), (other, others) in combinations([(v, span_basis(v)) for v in counted], 2):
        angles.append(float(principal_angles(own, others).max()))
        cosines.append(float(matched_cosines(one, other).mean()))
    ranked = all(len(v) > max(ranks) for v, _ in results)
    for (one, left), (other, right) in combinations(results, 2):
        if ranked:
            same = (unit_rows(one[ranks]) * unit_rows(other[ranks])).sum(axis=1)
            by_rank.append(float(np.abs(same).mean()))
        if left is not None and right is not None:
            rand.append(adjusted_rand_index(left, right))
    return {
        "largest_angle": _spread(angles),
        "matched_cosine": _spread(cosines),
        "rank_cosine": _spread(by_rank) if by_rank else None,
        "rand": _spread(rand) if rand else None,
    }


def _nearest(vectors: Floats, chosen: Floats) -> Floats:
    """Of the rows of vectors, those paired one to one with the chosen ones, whatever the sign."""
    cosines = np.abs(unit_rows(chosen) @ unit_rows(vectors).T)
    return vectors[linear_sum_assignment(-cosines)[1]]


def _spread(values: Sequence[float]) -> dict[str, float]:
    """Mean over pairs, and the range that holds 90 % of them."""
    low, high = np.quantile(values, [0.05, 0.95])
    return {"mean": float(np.mean(values)), "low": float(low), "high": float(high)}
