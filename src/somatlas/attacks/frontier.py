"""What an attack reaches under a drift budget: monotone fit, crossing, area. Arrays alone.

Attack success is a share in [0, 1], budgets are drifts in nats a token, rising. Everything works on
the last axis, so that ten thousand bootstrap draws are one call.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

BUDGETS = (0.03, 0.06, 0.12, 0.25, 0.5, 1.0, 2.0)  # nats a token


@dataclass(frozen=True)
class Draws:
    """How often each bootstrap draw takes each seed and each prompt.

    prompts : (r, n) counts. seeds : (r, s) counts; seeds and prompts are drawn independently (the
    pigeonhole bootstrap, Owen 2007). The same draws go into every model that is compared.
    """

    prompts: Floats
    seeds: Floats

    @classmethod
    def of(cls, prompts: int, seeds: int = 1, *, resamples: int = 10_000, seed: int = 0) -> Draws:
        """r = resamples draws with replacement of n prompts and s seeds."""
        rng = np.random.default_rng(seed)
        return cls(
            rng.multinomial(prompts, np.full(prompts, 1 / prompts), size=resamples).astype(float),
            rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples).astype(float),
        )

    def means(self, values: ArrayLike) -> Floats:
        """(r, m) means of values (s, m, n) in each draw; NaN cells are left out.

        Where a draw has no cell at all, the mean is that of all cells.
        """
        cells = np.asarray(values, dtype=float)
        there = np.isfinite(cells)
        filled = np.where(there, cells, 0.0)
        totals, counts = (
            np.einsum("rs,rsm->rm", self.seeds, np.einsum("smn,rn->rsm", side, self.prompts))
            if len(cells) > 1
            else self.prompts @ side[0].T
            for side in (filled, there.astype(float))
        )
        return np.where(counts > 0, totals / np.maximum(counts, 1e-12), cell_means(cells))


def cell_means(values: ArrayLike) -> Floats:
    """(m,) means of values (s, m, n) over seeds and prompts, NaN cells left out; 0 of none."""
    cells = np.asarray(values, dtype=float)
    there = np.isfinite(cells)
    totals = np.where(there, cells, 0.0).sum(axis=(0, 2))
    found: Floats = totals / np.maximum(there.sum(axis=(0, 2)), 1)
    return found


def isotonic(values: ArrayLike) -> Floats:
    """The rising sequence nearest to the values (..., m) in squares, weights equal.

    By the min-max formula (Robertson, Wright and Dykstra 1988, 1.4.6): the greatest over starts of
    the least over ends of the means between; for a handful of budgets cheaper than pooling, and it
    takes all draws at once.
    """
    y = np.asarray(values, dtype=float)
    m = y.shape[-1]
    sums = np.concatenate([np.zeros((*y.shape[:-1], 1)), y.cumsum(axis=-1)], axis=-1)
    fitted = np.full_like(y, -np.inf)
    for start in range(m):
        ends = np.arange(start, m)
        means = (sums[..., start + 1 :] - sums[..., start, None]) / (ends - start + 1)
        least = np.minimum.accumulate(means[..., ::-1], axis=-1)[..., ::-1]
        fitted[..., start:] = np.maximum(fitted[..., start:], least)
    return fitted


def crossing(budgets: ArrayLike, fitted: ArrayLike, level: float = 0.5) -> tuple[Floats, Floats]:
    """Between which two drifts a rising frontier (..., m) first reaches a level.

    Both are the same where it is reached between two budgets, interpolated in the logarithm of
    drift. Reached at the least budget already: 0 and that budget. Not reached: the greatest budget
    and infinity.
    """
    drifts, f = np.asarray(budgets, dtype=float), np.asarray(fitted, dtype=float)
    logs, there = np.log(drifts), f >= level
    reached = there.any(axis=-1)
    first = np.where(reached, there.argmax(axis=-1), len(logs) - 1)
    before = np.maximum(first - 1, 0)
    high = np.take_along_axis(f, first[..., None], axis=-1)[..., 0]
    low = np.take_along_axis(f, before[..., None], axis=-1)[..., 0]
    rise = np.where(high > low, high - low, 1.0)
    share = np.clip((level - low) / rise, 0, 1)
    inside = np.exp(logs[before] + (logs[first] - logs[before]) * share)
    at_once = reached & (first == 0)
    least = np.where(reached, np.where(at_once, 0.0, inside), drifts[-1])
    most = np.where(reached, np.where(at_once, drifts[0], inside), np.inf)
    return least, most


def area(budgets: ArrayLike, fitted: ArrayLike) -> Floats:
    """The mean of a frontier (..., m) over budgets that are uniform in their logarithm."""
    logs, f = np.log(np.asarray(budgets, dtype=float)), np.asarray(fitted, dtype=float)
    found: Floats = ((f[..., 1:] + f[..., :-1]) / 2 * np.diff(logs)).sum(axis=-1) / np.ptp(logs)
    return found


def value_at(budgets: ArrayLike, values: ArrayLike, drift: float) -> float:
    """values (m,) at a drift, interpolated in its logarithm; at the ends the nearest budget's."""
    places, known = (np.asarray(side, dtype=float) for side in (budgets, values))
    return float(np.interp(np.log(drift), np.log(places), known))
