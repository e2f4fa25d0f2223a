"""Runs that differ in their seed alone, as one: their cells side by side.

A run's cells are values by what they are of: a prompt, or a harmless reply.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from somatlas.numerics.statistics import Rate, crossed_interval, crossed_rate, wilson

Cells = Mapping[str, float]


def pooled_rate(runs: Sequence[Cells], seed: int = 0) -> Rate:
    """The rate with its interval: Wilson's of one run, `crossed_rate`'s of several."""
    if len(runs) == 1:
        return wilson(sum(runs[0].values()), len(runs[0]))
    return crossed_rate(_rows(runs), seed)


def pooled_mean(runs: Sequence[Cells], seed: int = 0) -> tuple[float, float, float] | None:
    """The mean with its interval (`crossed_interval`); None where there is no cell."""
    return crossed_interval(_rows(runs), seed)


def _rows(runs: Sequence[Cells]) -> list[list[float]]:
    columns = list(dict.fromkeys(key for cells in runs for key in cells))
    return [[cells.get(key, float("nan")) for key in columns] for cells in runs]
