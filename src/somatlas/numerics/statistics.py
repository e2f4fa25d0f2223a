"""Rates and how sure they are.

By scipy where it has it. By hand, because scipy lacks them: Wilson's interval of successes that are
no whole numbers (several replies to a prompt), Holm's correction, kappa, the pigeonhole bootstrap
and power; and the paired bootstrap, on whose draws published intervals rest. statsmodels and
scikit-learn, which have some of these, are no dependencies: the tests compare with them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

_Z95 = 1.959963984540054  # the standard normal's 97.5 % quantile
_Z80 = 0.8416212335729143  # its 80 % quantile
_RESAMPLES = 10_000
_BLOCK = 10_000_000  # draws that are held at a time


@dataclass(frozen=True)
class Rate:
    """A share of n with its 95 % Wilson interval; all three are None where n is 0."""

    rate: float | None
    low: float | None
    high: float | None
    n: int

    def __str__(self) -> str:
        if self.rate is None or self.low is None or self.high is None:
            return "-"
        return f"{100 * self.rate:.0f} % [{100 * self.low:.0f}, {100 * self.high:.0f}]"


def wilson(successes: float, n: int, repeats: float = 1) -> Rate:
    """The 95 % score interval of successes out of n (Wilson 1927).

    repeats : observations of each unit; the interval is as wide as that of n / repeats units, for
    which scipy's own (`binomtest`, whole numbers alone) cannot be asked.

    >>> print(wilson(3, 64))
    5 % [2, 13]
    """
    if n == 0:
        return Rate(None, None, None, 0)
    p = successes / n
    n = max(1, round(n / repeats))
    z2 = _Z95**2 / n
    centre = (p + z2 / 2) / (1 + z2)
    half = math.sqrt(z2 * p * (1 - p) + z2**2 / 4) / (1 + z2)
    return Rate(p, max(0.0, centre - half), min(1.0, centre + half), n)


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value with at least this share of the values at or below it."""
    return float(np.quantile(values, share, method="inverted_cdf"))


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided p value that two conditions differ on the same prompts (McNemar 1947).

    only_first, only_second : prompts that one condition alone has; those that both or neither
    have say nothing.
    """
    n = only_first + only_second
    return 1.0 if n == 0 else float(stats.binomtest(only_first, n).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """p values corrected for their number, in their order (Holm 1979)."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    corrected = [0.0] * len(p_values)
    highest = 0.0
    for place, i in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - place) * p_values[i]))
        corrected[i] = highest
    return corrected


def correlation(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Pearson's r; None under 4 points or without spread.

    Without an interval: what is correlated here are nested steps, each of which ablates what the
    one before it did, and Fisher's z would take them for independent.
    """
    if len(x) < 4 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    return float(stats.pearsonr(x, y).statistic)


def paired_difference(
    first: Sequence[float], second: Sequence[float], seed: int
) -> tuple[float, float, float]:
    """Mean of second - first over pairs, with a 95 % percentile bootstrap interval over pairs."""
    gaps = np.asarray(second, dtype=float) - np.asarray(first, dtype=float)
    rng = np.random.default_rng(seed)
    block = max(1, _BLOCK // len(gaps))  # the draws are the same however they are parted
    means = np.concatenate(
        [
            gaps[rng.integers(len(gaps), size=(min(block, _RESAMPLES - start), len(gaps)))].mean(1)
            for start in range(0, _RESAMPLES, block)
        ]
    )
    low, high = np.quantile(means, (0.025, 0.975))
    return float(gaps.mean()), float(low), float(high)


def mean_interval(values: Sequence[float], seed: int) -> tuple[float, float, float]:
    """Mean with a 95 % percentile bootstrap interval."""
    return paired_difference([0.0] * len(values), values, seed)


def crossed_interval(
    rows: Sequence[Sequence[float]], seed: int
) -> tuple[float, float, float] | None:
    """Mean over all cells with a 95 % interval that allows for other rows and other columns.

    rows : (r, c), a row a repeat of the experiment (a seed) and a column what all of them measured
    (a prompt); NaN where a cell is missing. Rows and columns are drawn with replacement,
    independently (the pigeonhole bootstrap, Owen 2007). With few rows it is too narrow: r of them
    show (r - 1) / r of the variance between rows. None where no cell is there.
    """
    values = np.asarray(rows, dtype=float)
    there = np.isfinite(values)
    if not there.any():
        return None
    values = np.where(there, values, 0.0)
    rng = np.random.default_rng(seed)
    r, c = values.shape
    block = max(1, _BLOCK // max(r, c))
    means = []
    for start in range(0, _RESAMPLES, block):
        size = min(block, _RESAMPLES - start)
        by_row = rng.multinomial(r, np.full(r, 1 / r), size=size)
        by_column = rng.multinomial(c, np.full(c, 1 / c), size=size)
        counts = ((by_row @ there) * by_column).sum(axis=1)
        totals = ((by_row @ values) * by_column).sum(axis=1)
        means.append(totals[counts > 0] / counts[counts > 0])
    low, high = np.quantile(np.concatenate(means), (0.025, 0.975))
    return float(values.sum() / there.sum()), float(low), float(high)


def crossed_rate(rows: Sequence[Sequence[float]], seed: int) -> Rate:
    """A rate over repeats of an experiment, with a 95 % interval over prompts and repeats.

    rows : (r, c) of shares from 0 to 1, as of `crossed_interval`. The interval is that one's, and
    at least Wilson's of the c prompts: where every cell is alike a bootstrap knows no doubt. n :
    the prompts; another repeat's reply to the same one is no independent evidence.
    """
    found = crossed_interval(rows, seed)
    if found is None:
        return Rate(None, None, None, 0)
    there = np.isfinite(np.asarray(rows, dtype=float))
    cells, prompts = int(there.sum()), int(there.any(axis=0).sum())
    over_prompts = wilson(found[0] * cells, cells, cells / prompts)
    assert over_prompts.low is not None
    assert over_prompts.high is not None
    low, high = min(found[1], over_prompts.low), max(found[2], over_prompts.high)
    return Rate(found[0], low, high, prompts)


def resolvable_difference(n: int, discordant: float = 0.25) -> float:
    """The least difference of two rates on the same n prompts that is found four times in five.

    By exact McNemar at 5 %, in Connor's (1987) approximation. discordant : share of the prompts on
    which the two conditions differ at all; it grows with the difference where it must. 1 where
    even that could not be found.
    """
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        share = max(discordant, middle)
        needed = (_Z95 * math.sqrt(share) + _Z80 * math.sqrt(share - middle**2)) ** 2 / middle**2
        low, high = (middle, high) if needed > n else (low, middle)
    return high


def kappa(first: Sequence[Hashable], second: Sequence[Hashable]) -> float | None:
    """Agreement of two judges beyond chance (Cohen 1960); None where chance alone is perfect."""
    n = len(first)
    if n == 0:
        return None
    observed = sum(a == b for a, b in zip(first, second, strict=True)) / n
    a, b = Counter(first), Counter(second)
    chance = sum(a[label] * b[label] for label in a) / n**2
    return None if chance == 1 else (observed - chance) / (1 - chance)


def kappa_interval(
    first: Sequence[Hashable], second: Sequence[Hashable], seed: int
) -> tuple[float, float] | None:
    """95 % percentile bootstrap interval of kappa over the replies; None where it has none."""
    labels = {label: i for i, label in enumerate(dict.fromkeys([*first, *second]))}
    m, n = len(labels), len(first)
    if n == 0:
        return None
    codes = np.array([labels[a] * m + labels[b] for a, b in zip(first, second, strict=True)])
    values = []
    rng = np.random.default_rng(seed)
    for _ in range(1000):
        sample = codes[rng.integers(n, size=n)]
        table = np.bincount(sample, minlength=m * m).reshape(m, m) / n
        chance = table.sum(axis=1) @ table.sum(axis=0)
        if chance < 1:
            values.append((np.trace(table) - chance) / (1 - chance))
    if not values:
        return None
    low, high = np.quantile(values, (0.025, 0.975))
    return float(low), float(high)
