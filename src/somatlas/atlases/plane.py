"""Representations in the plane and in space, with the directions and the map among them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from somatlas.numerics.geometry import principal_components

Floats = NDArray[np.floating]
_DRAWN = 400  # representations a side, evenly over their order


def plane(
    harmful: Floats, harmless: Floats, directions: Floats, single: NDArray[np.floating]
) -> dict[str, Any]:
    """Places on the two principal components of both clouds together.

    harmful, harmless : (n, d) and (m, d). directions : (r, d) and single : (d,), from the harmless
    mean; "ends" and "single" are the points that they lead to: a neuron's direction ends at the
    neuron, the mean difference at the harmful mean.
    """
    shown = _drawn(harmful), _drawn(harmless)
    places, shares = _axes(np.concatenate(shown), 2)
    start = harmless.mean(axis=0)
    return {
        "harmful": places(shown[0]),
        "harmless": places(shown[1]),
        "centroids": {
            "harmful": places(harmful.mean(axis=0)[None])[0],
            "harmless": places(start[None])[0],
        },
        "ends": places(start + directions),
        "single": places(start + single[None])[0],
        "variance": shares,
    }


def space(
    harmful: Floats, harmless: Floats, weights: Floats, edges: NDArray[np.integer]
) -> dict[str, Any]:
    """Places on the three principal components of the harmful cloud, which the map was fitted to.

    harmful, harmless : (n, d) and (l, d). weights : (m, d) of the neurons. edges : (e, 2) pairs of
    neurons that the grid joins, none where its neighbourhood means nothing.
    """
    shown = _drawn(harmful)
    places, shares = _axes(shown, 3)
    return {
        "harmful": places(shown),
        "harmless": places(_drawn(harmless)),
        "neurons": places(weights),
        "edges": edges.tolist(),
        "variance": shares,
    }


def _drawn(vectors: Floats) -> Floats:
    count = min(len(vectors), _DRAWN)
    return vectors[np.arange(count) * len(vectors) // count]


def _axes(vectors: Floats, count: int) -> tuple[Callable[[Floats], list[list[float]]], list[float]]:
    """What places rows on the leading components of vectors, and the components' shares."""
    mean, components, shares = principal_components(vectors, count)

    def places(rows: Floats) -> list[list[float]]:
        found: list[list[float]] = np.round((rows - mean) @ components.T, 4).tolist()
        return found

    return places, shares.tolist()
