"""What each neuron stands for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from somatlas.geometry import permutation_test
from somatlas.som import SOM

_TYPICAL = 5  # prompts shown of each neuron


def describe_neurons(
    vectors: NDArray[np.floating],
    weights: NDArray[np.floating],
    bmus: NDArray[np.integer],
    prompts: Sequence[str],
    categories: Sequence[str],
    refusal_scores: NDArray[np.floating],
) -> list[dict[str, Any]]:
    """One dictionary a neuron, in the neurons' order.

    vectors : (n, d) what was mapped. weights : (m, d). bmus : (n,) each one's neuron. categories :
    empty strings where unknown. refusal_scores : (n,) log-odds, NaN where not measured. A neuron's
    typical prompts are its nearest; its lift is a category's share in it over its share in all.
    """
    base = Counter(categories)
    gaps = np.linalg.norm(np.asarray(vectors, dtype=np.float64) - weights[bmus], axis=1)
    neurons = []
    for neuron in range(len(weights)):
        own = np.flatnonzero(bmus == neuron)
        rows: list[int] = own.tolist()
        counts = Counter(categories[i] for i in rows)
        scores = refusal_scores[own]
        scores = scores[np.isfinite(scores)]
        neurons.append(
            {
                "neuron": neuron,
                "hits": len(own),
                "categories": {
                    name: {
                        "count": count,
                        "lift": count / len(own) / (base[name] / len(categories)),
                    }
                    for name, count in counts.most_common()
                    if name
                },
                "typical": [prompts[i] for i in sorted(rows, key=gaps.__getitem__)[:_TYPICAL]],
                "refusal_score": float(scores.mean()) if len(scores) else None,
            }
        )
    return neurons


def category_information(
    bmus: NDArray[np.integer], categories: Sequence[str], seed: int
) -> dict[str, float] | None:
    """Bits that the neuron tells of the category, against chance; None with one category."""
    if len(set(categories)) < 2:
        return None
    bits, chance, p = permutation_test(bmus, list(categories), seed=seed)
    return {"bits": bits, "chance": chance, "p": p}


def map_errors(som: SOM, vectors: NDArray[np.floating]) -> dict[str, float]:
    """Quantization error, the mean distance to the best-matching unit; topographic error, the share
    whose best and second-best units are no neighbours on the grid (Kiviluoto 1996)."""
    data = np.asarray(vectors, dtype=np.float64)
    gaps = np.stack([np.linalg.norm(data - w, axis=1) for w in som.weights_], axis=1)
    order = gaps.argsort(axis=1, kind="stable")
    topographic = 0.0
    if som.n_neurons > 1:
        near = som.neighbours()
        topographic = float((~near[order[:, 0], order[:, 1]]).mean())
    return {"quantization": float(gaps.min(axis=1).mean()), "topographic": topographic}
