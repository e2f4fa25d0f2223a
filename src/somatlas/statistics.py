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
