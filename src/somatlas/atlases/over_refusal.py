"""Why harmless prompts that sound harmful are refused: do they lie towards the harmful ones?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu


def places_on_sd(
    vectors: NDArray[np.floating], harmful_mean: NDArray[np.floating], harmless_mean: NDArray[Any]
) -> NDArray[np.float64]:
    """(n,) places of vectors (n, d) along the mean difference: 0 harmless mean, 1 harmful mean."""
    start = np.asarray(harmless_mean, dtype=np.float64)
    axis = np.asarray(harmful_mean, dtype=np.float64) - start
    length = float(axis @ axis)
    gaps = np.asarray(vectors, dtype=np.float64) - start
    return gaps @ axis / length if length else np.zeros(len(gaps))


def over_refusal(places: Sequence[float], refused: Sequence[bool]) -> dict[str, Any] | None:
    """Mean place of the borderline prompts that were refused and of those that were answered.

    auc : the probability that a refused one lies farther towards the harmful mean than an answered
    one, ties half; 0.5 is chance. Figures of an empty side are None, and so is all without prompts.
    """
    if len(places) == 0:
        return None
    where, is_refused = np.asarray(places, dtype=np.float64), np.asarray(refused, dtype=bool)
    inside, outside = where[is_refused], where[~is_refused]
    n, m = len(inside), len(outside)
    auc = None
    if n and m:
        auc = float(mannwhitneyu(inside, outside, method="asymptotic").statistic / (n * m))
    return {
        "refused": n,
        "answered": m,
        "place_refused": float(inside.mean()) if n else None,
        "place_answered": float(outside.mean()) if m else None,
        "auc": auc,
    }
