"""A Gaussian process over sets of directions: what a set not tried yet may be worth.

Two sets are alike as far as the subspaces are that their directions span. With M_S the orthogonal
projection onto the span of set S, the similarity is s(S, T) = tr(M_S M_T) / k, which is 1 for the
same span and 0 for orthogonal ones, and the kernel is a (s + r s^2): the linear term lets every
direction have an effect of its own, the quadratic one pairs of them. Scale a, mix r and noise are
those of highest marginal likelihood on a small grid. Numerics only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from somatlas.searches.space import Ranks

Floats = NDArray[np.float64]

_MIXES = (0.1, 0.5, 2.0)
_NOISES = (0.02, 0.1, 0.4)  # variance, of outcomes scaled to variance 1


def span_features(vectors: Floats) -> Floats:
    """The directions (C, d) in an orthonormal basis of their own span: (C, r), unit rows."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    _, values, basis = np.linalg.svd(unit, full_matrices=False)
    return np.asarray(unit @ basis[values > 1e-9 * values[0]].T)


class Surrogate:
    """Predicts outcomes of sets of ranks from those of the sets tried.

    directions : (C, r) one row a candidate. points, outcomes : the sets tried, and their values;
    sets may differ in size.
    """

    def __init__(
        self, directions: Floats, points: Sequence[Ranks], outcomes: Sequence[float]
    ) -> None:
        self.directions = directions
        self.features = self._projections(points)
        y = np.asarray(outcomes, dtype=np.float64)
        self.centre, self.scale = float(y.mean()), float(y.std()) or 1.0
        y = (y - self.centre) / self.scale
        similarity = self.features @ self.features.T
        best = -math.inf
        for mix in _MIXES:
            for noise in _NOISES:
                covariance = (similarity + mix * similarity**2) / (1 + mix)
                covariance = covariance + noise * np.eye(len(y))
                root = np.linalg.cholesky(covariance)
                half = np.linalg.solve(root, y)
                amplitude = max(float(half @ half) / len(y), 1e-6)
                evidence = -0.5 * len(y) * math.log(amplitude)
                evidence -= float(np.log(root.diagonal()).sum())
                if evidence > best:
                    best = evidence
                    self.mix, self.amplitude, self._root, self._half = mix, amplitude, root, half

    def predict(self, points: Sequence[Ranks]) -> tuple[Floats, Floats]:
        """Mean and standard deviation of the outcome of each set."""
        similarity = self._projections(points) @ self.features.T
        covariance = (similarity + self.mix * similarity**2) / (1 + self.mix)
        reached = np.linalg.solve(self._root, covariance.T)
        mean = reached.T @ self._half
        variance = self.amplitude * np.maximum(1 - (reached**2).sum(axis=0), 1e-12)
        return self.centre + self.scale * mean, self.scale * np.sqrt(variance)

    def _projections(self, points: Sequence[Ranks]) -> Floats:
        """(N, r * r) the projections onto the sets' spans, flat, of length 1 each."""
        flat = np.empty((len(points), self.directions.shape[1] ** 2))
        sizes = [len(point) for point in points]
        for size in sorted(set(sizes)):
            rows = [row for row, own in enumerate(sizes) if own == size]
            chosen = self.directions[np.array([points[row] for row in rows])]  # (n, size, r)
            _, values, right = np.linalg.svd(chosen, full_matrices=False)
            right = right * (values > 1e-6 * values[:, :1])[:, :, None]
            flat[rows] = (right.transpose(0, 2, 1) @ right).reshape(len(rows), -1)
        return np.asarray(flat / np.linalg.norm(flat, axis=1, keepdims=True))


def expected_improvement(mean: Floats, deviation: Floats, incumbent: float) -> Floats:
    """How far each outcome is expected to lie above the incumbent, worse ones counted as 0."""
    z = (mean - incumbent) / deviation
    density = np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
    # Not scipy's ndtr: in its last bits it differs, and of near ties another set would be proposed.
    share = 0.5 * (1 + np.vectorize(math.erf)(z / math.sqrt(2)))
    return np.asarray(deviation * (z * share + density))
