"""What a comparison says beyond its tables: methods against the floors, k-means against the map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from somatlas.directions.methods import FLOORS
from somatlas.report.format import p_text

_MEASURES = {"asr": "ASR", "refusal": "refusal", "kl": "KL"}


class Row(Protocol):
    """One condition of one run: what made its directions, and its rates."""

    @property
    def name(self) -> str: ...
    @property
    def method(self) -> str: ...
    @property
    def test(self) -> Mapping[str, Any]: ...


def floor_text(rows: Sequence[Row]) -> str:
    """Each floor over its draws, and how many of all draws reach what each other method does."""
    floors = [row for row in rows if row.method in FLOORS]
    lines = []
    for method, meaning in FLOORS.items():
        own = [row for row in floors if row.method == method]
        if own:
            spans = ", ".join(_span(own, measure) for measure in _MEASURES)
            lines.append(f"  floor {method}, {meaning}: {_count(len(own), 'draw')}, {spans}")
    if not floors:
        return ""
    for row in rows:
        if row.method in FLOORS:
            continue
        reached = {
            measure: sum(_as_good(floor, row, measure) for floor in floors) for measure in _MEASURES
        }
        lines.append(
            f"  {row.name}: of {_count(len(floors), 'draw')} of the floors, ASR is as high in "
            f"{reached['asr']}, refusal as low in {reached['refusal']}, drift as low in "
            f"{reached['kl']}"
        )
    if len(floors) < 5:
        lines.append("  a floor needs five draws or more: --draw 1, 2, ... makes them")
    return "\n".join(lines) + "\n"


def kmeans_text(rows: Sequence[Row], tests: Sequence[Mapping[str, Any]]) -> str:
    """k-means against the map over the same prompts, with what the paper is said to have found."""
    methods = {row.name: row.method for row in rows}
    lines = []
    for test in tests:
        pair = [methods[test[place]] for place in ("first", "second")]
        if sorted(pair) != ["kmeans", "som"]:
            continue
        sign = 1 if pair[1] == "kmeans" else -1
        gap, *ends = (100 * sign * test[name] for name in ("difference", "low", "high"))
        low, high = sorted(ends)
        one, other = (test[p] for p in ("second", "first")[::sign])
        lines.append(
            f"  k-means ({one}) against the map ({other}), {_MEASURES[test['outcome']]}: "
            f"{gap:+.0f} points [{low:+.0f}, {high:+.0f}], p {p_text(test['p_holm'])}, "
            f"n = {test['n']}"
        )
    if not lines:
        return ""
    return "\n".join(lines) + "\n  the paper is said to find the map better (docs/method.md)\n"


def _span(rows: Sequence[Row], measure: str) -> str:
    values = [value for row in rows if (value := _value(row, measure)) is not None]
    if not values:
        return f"{_MEASURES[measure]} -"
    texts = [
        f"{v:.2f}" if measure == "kl" else f"{100 * v:.0f}"
        for v in (sum(values) / len(values), min(values), max(values))
    ]
    unit = "nats" if measure == "kl" else "%"
    return f"{_MEASURES[measure]} {texts[0]} {unit} ({texts[1]} to {texts[2]})"


def _as_good(floor: Row, row: Row, measure: str) -> bool:
    one, other = _value(floor, measure), _value(row, measure)
    if one is None or other is None:
        return False
    return one >= other if measure == "asr" else one <= other


def _value(row: Row, measure: str) -> float | None:
    value: Any = row.test[measure]
    found: float | None = value if measure == "kl" else value["rate"]
    return found


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"
