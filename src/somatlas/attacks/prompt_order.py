"""Examples in an order that a seed decides."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence


def drawn(places: Sequence[int], count: int, rng: random.Random) -> Iterator[list[int]]:
    """For ever, `count` of the places, or all where there are fewer: each comes once before any
    comes again."""
    size = min(count, len(places))
    left: list[int] = []
    while True:
        if len(left) < size:
            left += rng.sample(places, len(places))
        yield left[:size]
        left = left[size:]
