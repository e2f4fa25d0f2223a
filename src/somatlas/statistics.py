"""Rates and how sure they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_Z95 = 1.959963984540054  # the standard normal's 97.5 % quantile


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


def wilson(successes: int, n: int) -> Rate:
    """The 95 % score interval of successes out of n (Wilson 1927)."""
    if n == 0:
        return Rate(None, None, None, 0)
    p = successes / n
    z2 = _Z95**2 / n
    centre = (p + z2 / 2) / (1 + z2)
    half = math.sqrt(z2 * p * (1 - p) + z2**2 / 4) / (1 + z2)
    return Rate(p, max(0.0, centre - half), min(1.0, centre + half), n)


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value with at least this share of the values at or below it."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided p value that two conditions differ on the same prompts (McNemar 1947).

    only_first, only_second : prompts that one condition alone has; those that both or neither
    have say nothing.
    """
    n, k = only_first + only_second, min(only_first, only_second)
    tail: float = sum(math.comb(n, i) for i in range(k + 1)) / 2**n
    return min(1.0, 2 * tail)


def holm(p_values: Sequence[float]) -> list[float]:
    """p values corrected for their number, in their order (Holm 1979)."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    corrected = [0.0] * len(p_values)
    highest = 0.0
    for place, i in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - place) * p_values[i]))
        corrected[i] = highest
    return corrected


def correlation(x: Sequence[float], y: Sequence[float]) -> tuple[float, float, float] | None:
    """Pearson's r with its 95 % interval by Fisher's z; None under 4 points or without spread."""
    n = len(x)
    if n < 4:
        return None
    mean_x, mean_y = sum(x) / n, sum(y) / n
    xx = sum((a - mean_x) ** 2 for a in x)
    yy = sum((b - mean_y) ** 2 for b in y)
    if xx == 0 or yy == 0:
        return None
    r = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / math.sqrt(xx * yy)
    r = max(-1.0, min(1.0, r))
    if abs(r) > 1 - 1e-12:
        return r, r, r
    z, half = math.atanh(r), _Z95 / math.sqrt(n - 3)
    return r, math.tanh(z - half), math.tanh(z + half)
