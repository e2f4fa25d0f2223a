"""How steady directions are, beside those of the methods that the map is compared with."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from somatlas.atlases.stability import Method, stability
from somatlas.atlases.subject import Subject
from somatlas.directions.contract import Contrast, DirectionMethod
from somatlas.directions.direction_set import mean_difference
from somatlas.directions.methods import floors
from somatlas.progress import progress

_BESIDE = ("kmeans", "pca", "sd")


def steadiness(subject: Subject) -> dict[str, Any]:
    """Stability of the subject's method, first, of the floors and, for the map, of other methods,
    on the same samples.

    Measured on the directions that are ablated together; on the first k by rank where these are of
    a file of their own. A method that cannot be made again of a sample is left out
    (`DirectionMethod.is_sampled`).
    """
    own, whole = subject.method, subject.contrast
    method = subject.methods(own)
    names: list[str] = [own] if method.is_sampled else []
    if method.makes_map:
        names += _BESIDE
    if names:
        names += [floor for floor in floors() if floor != own]
    ranks, chosen, k = None, None, min(subject.k, subject.candidates)
    if subject.own:
        ranks, chosen = list(subject.ranks), subject.chosen.double().numpy()
        k = len(ranks)
    single = mean_difference(whole.harmful, whole.harmless).double().numpy()
    found = {}
    with progress("stability", len(names)) as advance:
        for name in names:
            found[name] = stability(
                _again(subject.methods(name), whole),
                len(whole.harmful),
                k=k,
                seed=subject.seed,
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
