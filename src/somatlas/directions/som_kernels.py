"""The map's two loops, compiled on first use."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_NEGLIGIBLE = 1e-18  # a pull that moves no float64 weight; most are, once the width has shrunk
# Sums may be reordered, so that they run in vector registers; no other liberty is taken.
_COMPILED = {"nogil": True, "cache": True, "fastmath": {"reassoc", "contract"}}


def _train(
    weights: Floats,
    data: Floats,
    order: NDArray[np.int64],
    distances: Floats,
    learning_rate: float,
    sigma: float,
) -> None:
    """One online pass over data[order]; weights (m, d) change in place.

    Each step goes through the weights once: what is pulled towards this sample is compared with
    the next one while it is at hand.
    """
    neurons, size = weights.shape
    steps = len(order)
    gaps = np.zeros(neurons)
    x = data[order[0]]
    for i in range(neurons):
        for j in range(size):
            gaps[i] += (x[j] - weights[i, j]) ** 2
    for t in range(steps):
        bmu = np.argmin(gaps)
        following = data[order[(t + 1) % steps]]
        decay = 1 + t / (steps / 2)
        width = sigma / decay
        for i in range(neurons):
            pull = learning_rate / decay * np.exp(-distances[bmu, i] / (2 * width * width))
            gap = 0.0
            if pull < _NEGLIGIBLE:
                for j in range(size):
                    gap += (following[j] - weights[i, j]) ** 2
            else:
                for j in range(size):
                    moved = weights[i, j] + pull * (x[j] - weights[i, j])
                    weights[i, j] = moved
                    gap += (following[j] - moved) ** 2
            gaps[i] = gap
        x = following


def _nearest(data: Floats, weights: Floats) -> NDArray[np.int64]:
    """Index of the nearest row of weights (m, d) for each row of data (n, d)."""
    nearest = np.zeros(len(data), dtype=np.int64)
    for n in range(len(data)):
        least = np.inf
        for i in range(len(weights)):
            gap = 0.0
            for j in range(weights.shape[1]):
                gap += (data[n, j] - weights[i, j]) ** 2
            if gap < least:
                least = gap
                nearest[n] = i
    return nearest


train: Callable[..., None] = njit(**_COMPILED)(_train)
nearest_rows: Callable[..., NDArray[np.int64]] = njit(**_COMPILED)(_nearest)
