"""How well judges agree, with each other and with a person."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from somatlas.judges.verdict import Verdict
from somatlas.numerics.statistics import kappa, kappa_interval


@dataclass(frozen=True)
class Agreement:
    """Of two judges on the replies that both judged, n of them.

    kappa : Cohen's, with a bootstrap interval over the replies; None where there is no chance
    disagreement to compare with. confusion : how often each pair of verdicts was given, by
    category. differing : places of the replies on which they differ.
    """

    first: str
    second: str
    n: int
    agree: float | None
    kappa: float | None
    interval: tuple[float, float] | None
    confusion: Mapping[str, Mapping[tuple[str, str], int]]
    differing: list[int]


def agreements(
    verdicts: Mapping[str, Sequence[str | None]], categories: Sequence[str], seed: int
) -> list[Agreement]:
    """Of every two judges. verdicts : each judge's, in one order; None or missing is left out."""
    return [
        _agreement(a, b, verdicts[a], verdicts[b], categories, seed)
        for a, b in combinations(verdicts, 2)
    ]


def _agreement(
    a: str,
    b: str,
    first: Sequence[str | None],
    second: Sequence[str | None],
    categories: Sequence[str],
    seed: int,
) -> Agreement:
    absent = (None, Verdict.MISSING.value)
    both = [i for i in range(len(first)) if first[i] not in absent and second[i] not in absent]
    x, y = [str(first[i]) for i in both], [str(second[i]) for i in both]
    differing = [i for i in both if first[i] != second[i]]
    confusion: dict[str, Counter[tuple[str, str]]] = {}
    for i, u, v in zip(both, x, y, strict=True):
        confusion.setdefault(categories[i], Counter())[u, v] += 1
    return Agreement(
        a,
        b,
        len(both),
        1 - len(differing) / len(both) if both else None,
        kappa(x, y),
        kappa_interval(x, y, seed),
        confusion,
        differing,
    )


def judged_rows(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str | None]]:
    """Each judge's verdicts from the rows of verdicts.jsonl."""
    names = dict.fromkeys(name for row in rows for name in row["judges"])
    return {name: [row["judges"].get(name, {}).get("verdict") for row in rows] for name in names}
