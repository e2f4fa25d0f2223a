"""Geometry of representations and directions: numerics on plain arrays.

n vectors of d values; k directions; everything in float64. Partitions are compared
by hand (adjusted Rand index, mutual information): scipy has neither, and scikit-learn is no
dependency.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment

Floats = NDArray[np.float64]


def unit_rows(vectors: ArrayLike) -> Floats:
    """Each row over its length; rows of length 0 stay.

    >>> unit_rows([[3, 4], [0, 0]]).tolist()
    [[0.6, 0.8], [0.0, 0.0]]
    """
    v = np.asarray(vectors, dtype=np.float64)
    lengths = np.linalg.norm(v, axis=-1, keepdims=True)
    return v / np.where(lengths > 0, lengths, 1.0)


def cosine_matrix(vectors: ArrayLike) -> Floats:
    """(k, k) cosines between the rows of vectors (k, d).

    >>> cosine_matrix([[1, 0], [3, 3]]).round(3).tolist()
    [[1.0, 0.707], [0.707, 1.0]]
    """
    u = unit_rows(vectors)
    return np.clip(u @ u.T, -1.0, 1.0)


def compactness(vectors: ArrayLike) -> float:
    """Mean distance of the rows of vectors (n, d) to their centroid: small where they huddle."""
    v = np.asarray(vectors, dtype=np.float64)
    return float(np.linalg.norm(v - v.mean(axis=0), axis=1).mean())


def centroid_distance(one: ArrayLike, other: ArrayLike) -> float:
    """Distance between the centroids of two clouds (n, d) and (m, d)."""
    a, b = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    return float(np.linalg.norm(a.mean(axis=0) - b.mean(axis=0)))


def principal_components(vectors: ArrayLike, count: int) -> tuple[Floats, Floats, Floats]:
    """Mean (d,), the leading components (count, d) as unit rows, and their shares of variance.

    Signs are fixed: the largest entry of each component is positive. Where the cloud spans fewer
    dimensions, the further components are zero.
    """
    v = np.asarray(vectors, dtype=np.float64)
    mean = v.mean(axis=0)
    _, values, basis = np.linalg.svd(v - mean, full_matrices=False)
    signs = np.sign(basis[np.arange(len(basis)), np.abs(basis).argmax(axis=1)])
    basis = basis * np.where(signs == 0, 1.0, signs)[:, None]
    total = float((values**2).sum()) or 1.0
    components = np.zeros((count, v.shape[1]))
    shares = np.zeros(count)
    kept = min(count, len(basis))
    components[:kept] = basis[:kept] * (values[:kept, None] > 1e-12 * max(float(values[0]), 1e-300))
    shares[:kept] = values[:kept] ** 2 / total
    return mean, components, shares


def stress(vectors: ArrayLike, places: ArrayLike) -> float:
    """Kruskal's stress-1 of places (n, p) for the distances among vectors (n, d): 0 is perfect."""
    from scipy.spatial.distance import pdist

    true = pdist(np.asarray(vectors, dtype=np.float64))
    shown = pdist(np.asarray(places, dtype=np.float64))
    total = float((true**2).sum())
    return float(np.sqrt(((true - shown) ** 2).sum() / total)) if total else 0.0


def span_basis(vectors: ArrayLike) -> Floats:
    """(r, d) orthonormal rows that span the rows of vectors (k, d)."""
    _, values, basis = np.linalg.svd(unit_rows(vectors), full_matrices=False)
    return np.asarray(basis[values > 1e-9 * values[0]])


def principal_angles(one: Floats, other: Floats) -> Floats:
    """Angles in degrees between two spans, smallest first, of orthonormal rows (r, d) and (s, d) of
    each (`span_basis`).

    By the cosines (Bjorck and Golub 1973), so to a millionth of a degree near 0.
    """
    cosines = np.linalg.svd(one @ other.T, compute_uv=False)
    return np.asarray(np.degrees(np.arccos(np.clip(cosines, -1, 1))))


def matched_cosines(one: ArrayLike, other: ArrayLike) -> Floats:
    """Cosines between directions of two sets, paired one to one so that their sum is greatest.

    They are without sign: to ablate a direction is to ablate its opposite.
    """
    cosines = np.abs(unit_rows(one) @ unit_rows(other).T)
    rows, columns = linear_sum_assignment(-cosines)
    return np.asarray(cosines[rows, columns])


def adjusted_rand_index(one: ArrayLike, other: ArrayLike) -> float:
    """Agreement of two partitions of the same items: 1 equal, 0 as by chance (Hubert 1985)."""
    _, a = np.unique(np.asarray(one), return_inverse=True)
    _, b = np.unique(np.asarray(other), return_inverse=True)
    table = np.zeros((a.max() + 1, b.max() + 1))
    np.add.at(table, (a, b), 1)

    def pairs(counts: Any) -> float:
        return float((counts * (counts - 1) / 2).sum())

    both, rows, columns = pairs(table), pairs(table.sum(axis=1)), pairs(table.sum(axis=0))
    every = pairs(np.array([len(a)], dtype=np.float64))
    expected = rows * columns / every if every else 0.0
    most = (rows + columns) / 2
    return 1.0 if most == expected else (both - expected) / (most - expected)


def mutual_information(one: ArrayLike, other: ArrayLike) -> float:
    """Mutual information of two labellings of the same items, in bits."""
    _, a = np.unique(np.asarray(one), return_inverse=True)
    _, b = np.unique(np.asarray(other), return_inverse=True)
    table = np.zeros((a.max() + 1, b.max() + 1))
    np.add.at(table, (a, b), 1)
    p = table / table.sum()
    independent = p.sum(axis=1, keepdims=True) * p.sum(axis=0, keepdims=True)
    here = p > 0
    return float((p[here] * np.log2(p[here] / independent[here])).sum())


def permutation_test(
    one: ArrayLike,
    other: ArrayLike,
    *,
    strata: ArrayLike | None = None,
    permutations: int = 1000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Mutual information in bits, its mean by chance, and the p value.

    Chance is the second labelling shuffled; p counts the observed order as one of them. strata :
    (n,) labels within which alone it is shuffled, where the items were designed to have the second
    labels evenly in each of them: a free shuffle would break that balance.
    """
    rng = np.random.default_rng(seed)
    a, b = np.asarray(one), np.asarray(other)
    within = np.zeros(len(b)) if strata is None else np.asarray(strata)
    groups = [np.flatnonzero(within == label) for label in np.unique(within)]
    observed = mutual_information(a, b)
    chance = []
    for _ in range(permutations):
        shuffled = b.copy()
        for group in groups:
            shuffled[group] = b[rng.permutation(group)]
        chance.append(mutual_information(a, shuffled))
    beyond = sum(value >= observed - 1e-12 for value in chance)
    return observed, float(np.mean(chance)), (1 + beyond) / (1 + permutations)
