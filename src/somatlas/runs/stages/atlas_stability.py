"""How steady a run's directions are, beside those of the methods that the map is compared with."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from somatlas.atlases import stability
from somatlas.atlases.stability import Method
from somatlas.directions.methods import FLOORS, METHODS, Contrast
from somatlas.directions.direction_set import DirectionSet, mean_difference
from somatlas.progress import progress
from somatlas.runs.folder import Run
from somatlas.runs.stages.ablate_stage import chosen_directions
from somatlas.runs.stages.map_stage import make_map

_BESIDE = ("kmeans", "pca", "sd")


def stability_of(run: Run, whole: Contrast) -> dict[str, Any]:
    """Stability of the run's method, first, of the floors and, for the map, of other methods, on
    the same samples.

    Measured on the directions that the search chose, or the user; on the first k by rank where
    they are of a file of their own. Method "layers" is left out: a sample of one layer's
    representations gives one layer's SD.
    """
    own = run.config.method
    names: list[str] = [] if own == "layers" else [own]
    if own == "som":
        names += _BESIDE
    if names:
        names += [floor for floor in FLOORS if floor != own]
    ranks, chosen = None, None
    k = min(run.config.k, run.config.candidates)
    if run.config.directions is None:
        ranks, vectors = chosen_directions(run)
        k, chosen = len(ranks), vectors.double().numpy()
    single = mean_difference(whole.harmful, whole.harmless).double().numpy()
    found = {}
    with progress("stability", len(names)) as advance:
        for name in names:
            method = _by_map(run, whole) if name == "som" else _by(name, whole)
            found[name] = stability(
                method,
                len(whole.harmful),
                k=k,
                seed=run.config.seed,
                chosen=chosen,
                ranks=ranks,
                single=single,
            )
            advance(1)
    return found


def _by_map(run: Run, whole: Contrast) -> Method:
    harmful, centre = whole.harmful.double().numpy(), whole.harmless.double().mean(dim=0)

    def method(
        rows: NDArray[np.int64], seed: int
    ) -> tuple[NDArray[np.float64], NDArray[np.int64] | None]:
        som = make_map(run.config, seed).fit(harmful[rows])
        return DirectionSet.from_som(som, centre).vectors.double().numpy(), som.predict(harmful)

    return method


def _by(name: str, whole: Contrast) -> Method:
    """Of k-means the nearest centroid parts the prompts; the others make no parts."""
    shifted = whole.shifted

    def method(
        rows: NDArray[np.int64], seed: int
    ) -> tuple[NDArray[np.float64], NDArray[np.int64] | None]:
        vectors = METHODS[name](whole.sampled(rows, seed)).vectors.double().numpy()
        parts = cdist(shifted, vectors).argmin(axis=1) if name == "kmeans" else None
        return vectors, parts

    return method
