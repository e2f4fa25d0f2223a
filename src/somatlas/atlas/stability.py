"""Would another sample, or another seed, have given the same directions?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from somatlas.geometry import adjusted_rand_index, matched_cosines, principal_angles

Floats = NDArray[np.float64]

# Sample of rows and seed -> directions (r, d) and the partition of all rows, or None.
Method = Callable[[NDArray[np.int64], int], tuple[Floats, NDArray[np.int64] | None]]

SHARE, REPEATS = 0.8, 20


def stability(
    method: Method, n: int, *, k: int, seed: int = 0, repeats: int = REPEATS
) -> dict[str, Any]:
    """Agreement between the directions of pairs of repeats, over samples and over seeds.

    method : makes directions, the most important first, from a sample of n rows. k : how many of
    them count. Samples are 80 % of the rows without replacement, each with a seed of its own, as
    somebody who repeats the work would have; seeds use all rows. Angles are the largest between
    the spans of the first k; cosines, without sign, the mean over directions paired one to one.
    """
    rng = np.random.default_rng(seed)
    samples = [np.sort(rng.permutation(n)[: max(2, round(SHARE * n))]) for _ in range(repeats)]
    every = np.arange(n)
    return {
        "samples": _agreement([method(rows, seed + i) for i, rows in enumerate(samples)], k),
        "seeds": _agreement([method(every, seed + i) for i in range(repeats)], k),
        "repeats": repeats,
        "share": SHARE,
        "k": k,
    }


def _agreement(
    results: Sequence[tuple[Floats, NDArray[np.int64] | None]], k: int
) -> dict[str, dict[str, float] | None]:
    angles, cosines, rand = [], [], []
    for (one, left), (other, right) in combinations(results, 2):
        angles.append(float(principal_angles(one[:k], other[:k]).max()))
        cosines.append(float(matched_cosines(one[:k], other[:k]).mean()))
        if left is not None and right is not None:
            rand.append(adjusted_rand_index(left, right))
    return {
        "largest_angle": _spread(angles),
        "matched_cosine": _spread(cosines),
        "rand": _spread(rand) if rand else None,
    }


def _spread(values: Sequence[float]) -> dict[str, float]:
    """Mean over pairs, and the range that holds 90 % of them."""
    low, high = np.quantile(values, [0.05, 0.95])
    return {"mean": float(np.mean(values)), "low": float(low), "high": float(high)}
