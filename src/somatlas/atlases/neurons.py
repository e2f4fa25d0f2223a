"""What each neuron stands for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import pdist, squareform
from scipy.stats import rankdata

from somatlas.directions.som import SOM
from somatlas.numerics.geometry import permutation_test

PERMUTATIONS = 1000  # of the neurons on the grid, for what chance gives
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

    vectors : (n, d) what was mapped, as the map sees it. weights : (m, d). bmus : (n,) each one's
    neuron. categories : empty strings where unknown. refusal_scores : (n,) log-odds, NaN where not
    measured. A neuron's typical prompts are its nearest; its lift is a category's share in it over
    its share in all.
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
    bmus: NDArray[np.integer], categories: Sequence[str], forms: Sequence[str], seed: int
) -> dict[str, Any] | None:
    """Bits that the neuron tells of the category, against chance; None with one category.

    forms : each prompt's grammatical form (`Prompt.syntax`), empty strings where unknown. Where
    prompts have one, chance shuffles categories within each form: neurons follow the form, and a
    set that has every category in every form is no free draw. "shuffled" says which it was.
    """
    if len(set(categories)) < 2:
        return None
    by_form = any(forms)
    bits, chance, p = permutation_test(
        bmus, list(categories), strata=list(forms) if by_form else None, seed=seed
    )
    return {"bits": bits, "chance": chance, "p": p, "shuffled": "by form" if by_form else "freely"}


def map_errors(som: SOM, vectors: NDArray[np.floating], seed: int = 0) -> dict[str, Any]:
    """How well the map fits vectors (n, d), as it sees them, and whether its grid means anything.

    quantization : mean distance to the best-matching unit. topographic : the share of vectors whose
    best and second-best units are no neighbours on the grid (Kiviluoto 1996). rank_correlation :
    Spearman's, over pairs of neurons, of their distance on the grid with that of their weights;
    None where either has one value alone. chance : the same two with the neurons put on the grid at
    random, mean and 95 % range over `PERMUTATIONS` draws. ordered : the error lies below its range
    and the correlation above, so that neighbours on the grid are neighbours in space.
    """
    data = som.seen(vectors)
    gaps = np.stack([np.linalg.norm(data - w, axis=1) for w in som.weights_], axis=1)
    order = gaps.argsort(axis=1, kind="stable")
    found: dict[str, Any] = {
        "quantization": float(gaps.min(axis=1).mean()),
        "topographic": 0.0,
        "rank_correlation": None,
        "chance": None,
        "ordered": False,
    }
    m = som.n_neurons
    if m == 1:
        return found
    pairs = np.zeros((m, m))  # the share of vectors with each best and second-best unit
    np.add.at(pairs, (order[:, 0], order[:, 1]), 1 / len(data))
    apart = ~som.neighbours()
    found["topographic"] = float(pairs[apart].sum())
    upper = np.triu_indices(m, 1)
    # Equal distances on the grid differ by rounding, which ranks must not see.
    grid = squareform(_standard_ranks(som.grid_distances()[upper].round(9)))
    space = _standard_ranks(pdist(som.weights_))
    rng = np.random.default_rng(seed)
    errors, correlations = [], []
    for _ in range(PERMUTATIONS):
        placed = rng.permutation(m)
        errors.append(pairs[apart[np.ix_(placed, placed)]].sum())
        correlations.append((grid[np.ix_(placed, placed)][upper] * space).mean())
    chance: dict[str, Any] = {"permutations": PERMUTATIONS, "topographic": _range(errors)}
    if grid.any() and space.any():
        own = float((grid[upper] * space).mean())
        among = chance["rank_correlation"] = _range(correlations)
        found["rank_correlation"] = own
        found["ordered"] = (
            found["topographic"] < chance["topographic"]["low"] and own > among["high"]
        )
    return {**found, "chance": chance}


def _standard_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks with mean 0 and variance 1, ties in the middle; zeros where all are equal."""
    ranks = rankdata(values) - (len(values) + 1) / 2
    spread = ranks.std()
    return np.asarray(ranks / spread if spread else ranks)


def _range(values: Sequence[float]) -> dict[str, float]:
    low, high = np.quantile(values, (0.025, 0.975))
    return {"mean": float(np.mean(values)), "low": float(low), "high": float(high)}
