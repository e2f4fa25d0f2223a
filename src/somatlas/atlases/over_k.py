"""The clusters' geometry while directions are ablated one after another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from somatlas.numerics.geometry import centroid_distance, compactness, principal_components, stress
from somatlas.numerics.statistics import correlation

MEASURES = ("compactness", "harmless_compactness", "ratio", "distance")


def geometry_at(
    harmful: NDArray[np.floating], harmless: NDArray[np.floating]
) -> dict[str, float | None]:
    """Compactness of either cluster, their ratio, and the distance of their centroids.

    harmful, harmless : (n, d) and (m, d) representations of the model under an ablation. ratio :
    harmful over harmless, below 1 where the harmful cluster huddles more; None where the harmless
    one has no extent.
    """
    own, other = compactness(harmful), compactness(harmless)
    return {
        "compactness": own,
        "harmless_compactness": other,
        "ratio": own / other if other else None,
        "distance": centroid_distance(harmful, harmless),
    }


def in_one_frame(
    clouds: Sequence[tuple[NDArray[np.floating], NDArray[np.floating]]],
) -> list[dict[str, Any]]:
    """Places in 3D of the harmful (n, d) and harmless (m, d) cloud of every step, on common axes.

    The axes are the three principal components of all clouds together, which is classical scaling
    of all their distances: a cluster that shrinks or moves does so on the page. stress :
    Kruskal's stress-1 of each step's places, what three dimensions lose of its distances.
    """
    mean, axes, _ = principal_components(np.concatenate([x for pair in clouds for x in pair]), 3)
    steps = []
    for harmful, harmless in clouds:
        places = [(cloud - mean) @ axes.T for cloud in (harmful, harmless)]
        lost = stress(np.concatenate([harmful, harmless]), np.concatenate(places))
        own, other = (np.round(x, 4).tolist() for x in places)
        steps.append({"stress": lost, "harmful": own, "harmless": other})
    return steps


def relations(steps: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """Pearson's r over k of each of `MEASURES` with ASR, None where there is too little.

    steps : dictionaries with "asr" and the measures. They are nested, each ablating what the one
    before it did, so that r describes them and no interval can be given.
    """
    return {
        name: None
        if any(s[name] is None for s in steps)
        else correlation([s[name] for s in steps], [s["asr"] for s in steps])
        for name in MEASURES
    }
