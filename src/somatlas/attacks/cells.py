"""The map after an ablation: which of its cells come back, and which kinds of prompts they hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int64]


def cells_after(
    now: Labels, before: Labels, lengths: Sequence[float], categories: Sequence[str]
) -> list[dict[str, Any]]:
    """What each cell of a map made under an ablation holds, as plain values, by its rank.

    now, before : (n,) the cell of each harmful prompt under it, and on the first map. lengths : of
    each direction now, over the mean length of the representations that it was made of. Of a cell:
    `prompts`, `length`, `from` (the first map's cell that most of its prompts were in) and `share`
    (of its prompts that were), `category` (that most are of, "" where unknown) and
    `category_share`. A cell comes back where its share is high and its length is not small; it is
    new where its prompts come from many.

    >>> now, before = np.array([0, 0, 0, 1]), np.array([2, 2, 1, 1])
    >>> cell = cells_after(now, before, [0.5, 0.1], ["fire", "fire", "fire", ""])[0]
    >>> cell["prompts"], cell["from"], round(cell["share"], 2), cell["category"]
    (3, 2, 0.67, 'fire')
    """
    found = []
    for cell, length in enumerate(lengths):
        own = np.flatnonzero(now == cell)
        origin, count = _most([int(before[i]) for i in own.tolist()])
        category, alike = _most([categories[i] for i in own.tolist()] if categories else [])
        found.append(
            {
                "prompts": len(own),
                "length": round(float(length), 4),
                "from": origin,
                "share": round(count / max(1, len(own)), 4),
                "category": category or "",
                "category_share": round(alike / max(1, len(own)), 4),
            }
        )
    return found


def _most(values: Sequence[Any]) -> tuple[Any, int]:
    """The commonest value, and how often it is there; None and 0 of none."""
    return Counter(values).most_common(1)[0] if values else (None, 0)
