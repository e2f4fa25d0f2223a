"""The clusters' geometry while directions are ablated one after another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from somatlas.geometry import (
    centroid_distance,
    classical_scaling,
    compactness,
    stress,
)
from somatlas.statistics import correlation

_MEASURES = ("compactness", "distance")


def geometry_at(harmful: NDArray[np.floating], harmless: NDArray[np.floating]) -> dict[str, Any]:
    """Compactness of the harmful cluster, its distance to the harmless one, and places in 3D.

    harmful, harmless : (n, d) and (m, d) representations of the model under an ablation.
    """
    both = np.concatenate([harmful, harmless])
    places = classical_scaling(both)
    return {
        "compactness": compactness(harmful),
        "distance": centroid_distance(harmful, harmless),
        "stress": stress(both, places),
        "harmful": np.round(places[: len(harmful)], 4).tolist(),
        "harmless": np.round(places[len(harmful) :], 4).tolist(),
    }


def relations(steps: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float] | None]:
    """Correlation over k of compactness and of distance with ASR, each with its 95 % interval.

    steps : dictionaries with "asr" and the measures. None where there is too little to correlate.
    """
    found: dict[str, dict[str, float] | None] = {}
    for name in _MEASURES:
        result = correlation([s[name] for s in steps], [s["asr"] for s in steps])
        found[name] = (
            None if result is None else dict(zip(("r", "low", "high"), result, strict=True))
        )
    return found
