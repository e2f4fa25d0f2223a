"""How steady a run's directions are, beside those of the methods that the map is compared with."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from somatlas.atlases import stability
from somatlas.atlases.stability import Method
from somatlas.directions.contract import Contrast, DirectionMethod
from somatlas.directions.direction_set import mean_difference
from somatlas.directions.methods import METHODS, floors
from somatlas.progress import progress
from somatlas.runs.folder import Run
from somatlas.runs.stages.ablate_stage import chosen_directions
from somatlas.runs.stages.map_stage import make_method

_BESIDE = ("kmeans", "pca", "sd")


def stability_of(run: Run, whole: Contrast) -> dict[str, Any]:
    """Stability of the run's method, first, of the floors and, for the map, of other methods, on
    the same samples.

    Measured on the directions that the search chose, or the user; on the first k by rank where
    they are of a file of their own. A method that cannot be made again of a sample is
    left out (`DirectionMethod.is_sampled`).
    """
    own = run.config.method
    method = METHODS.get(own)
    names: list[str] = [own] if method.is_sampled else []
    if method.makes_map:
        names += _BESIDE
    if names:
        names += [floor for floor in floors() if floor != own]
    ranks, chosen = None, None
    k = min(run.config.k, run.config.candidates)
    if run.config.directions is None:
        ranks, vectors = chosen_directions(run)
        k, chosen = len(ranks), vectors.double().numpy()
    single = mean_difference(whole.harmful, whole.harmless).double().numpy()
    found = {}
    with progress("stability", len(names)) as advance:
        for name in names:
            found[name] = stability(
                _again(make_method(run.config, name), whole),
                len(whole.harmful),
                k=k,
                seed=run.config.seed,
                chosen=chosen,
                ranks=ranks,
                single=single,
            )
            advance(1)
    return found


def _again(method: DirectionMethod, whole: Contrast) -> Method:
    """The method on a sample: its directions, and the part of it that each prompt falls into."""

    def made(
        rows: NDArray[np.int64], seed: int
    ) -> tuple[NDArray[np.float64], NDArray[np.int64] | None]:
        sample = whole.sampled(rows)
        own = method.unfitted(seed).fit(sample.harmful, sample.harmless, context=sample.context)
        return own.directions_.vectors.double().numpy(), own.partition(whole.harmful)

    return made
