"""How steady a run's directions are, beside those of the methods that the map is compared with."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from somatlas.atlas import stability
from somatlas.atlas.stability import Method
from somatlas.comparators import METHODS, Contrast
from somatlas.directions import DirectionSet
from somatlas.progress import progress
from somatlas.run import Run
from somatlas.stages.map import make_map

_BESIDE = ("kmeans", "pca", "sd", "covariance", "random")


def stability_of(run: Run, whole: Contrast) -> dict[str, Any]:
    """Stability of the run's method; of the map's, the comparators' on the same samples too.

    Method "layers" is left out: a sample of one layer's representations gives one layer's SD.
    """
    own = run.config.method
    names: list[str] = [] if own == "layers" else [own]
    if own == "som":
        names += _BESIDE
    k = min(run.config.k, run.config.candidates)
    found = {}
    with progress("stability", len(names)) as advance:
        for name in names:
            method = _by_map(run, whole) if name == "som" else _by(name, whole)
            found[name] = stability(method, len(whole.harmful), k=k, seed=run.config.seed)
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
