"""Representations in the plane: harmful, harmless, their centroids, and every direction."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from somatlas.geometry import principal_components, unit_rows


def plane(
    harmful: NDArray[np.floating],
    harmless: NDArray[np.floating],
    directions: NDArray[np.floating],
) -> dict[str, Any]:
    """Places on the two principal components of both clouds together.

    directions : (r, d); an arrow's length is the share of the direction that lies in the plane.
    """
    both = np.concatenate([harmful, harmless])
    mean, components, shares = principal_components(both, 2)

    def places(vectors: NDArray[np.floating]) -> list[list[float]]:
        rows: list[list[float]] = np.round((vectors - mean) @ components.T, 4).tolist()
        return rows

    return {
        "harmful": places(harmful),
        "harmless": places(harmless),
        "centroids": {
            "harmful": places(harmful.mean(axis=0, keepdims=True))[0],
            "harmless": places(harmless.mean(axis=0, keepdims=True))[0],
        },
        "directions": np.round(unit_rows(directions) @ components.T, 4).tolist(),
        "variance": shares.tolist(),
    }
