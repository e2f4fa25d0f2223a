"""The map's cells as the page draws them: corners, shade, and what is said of each neuron."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from somatlas.report.read import Facts, MapFile

_LIGHTEST, _SHADE = 0.06, 0.6  # opacity of the lightest cell, and what the darkest has more
_SIDES = {"hexagonal": 6, "rectangular": 4}


def map_cells(facts: Facts) -> list[dict[str, Any]]:
    """One a neuron; `about` is None where the atlas has not described it yet."""
    if facts.map is None:
        return []
    darkest = float(facts.map.u_matrix.max()) or 1.0
    shown = _SHADE if facts.map.ordered else 0.0  # no shade where neighbours mean nothing
    neurons = (facts.atlas or {}).get("neurons") or [None] * len(facts.map.hits)
    cells = []
    for i, (rank, neuron) in enumerate(zip(facts.map.ranks, neurons, strict=True)):
        x, y = _place(facts.map, i)
        corners = _corners(facts.map, x, y)
        cells.append(
            {
                "neuron": i,
                "rank": "–" if rank is None else rank,
                "hits": int(facts.map.hits[i]),
                "chosen": rank in facts.chosen,
                "points": " ".join(f"{a:.3f},{b:.3f}" for a, b in corners),
                "shade": f"{_LIGHTEST + shown * float(facts.map.u_matrix[i]) / darkest:.2f}",
                "x": f"{x:.3f}",
                "y": f"{y + 0.08:.3f}",
                "below": f"{y + 0.33:.3f}",
                "about": None if neuron is None else _about(neuron),
            }
        )
    return cells


def map_view(facts: Facts) -> str:
    """The viewBox that holds all cells."""
    if facts.map is None:
        return ""
    low = facts.map.coordinates.min(axis=0) - 0.75
    high = facts.map.coordinates.max(axis=0) + 0.75
    return f"{low[0]:.3f} {-high[1]:.3f} {high[0] - low[0]:.3f} {high[1] - low[1]:.3f}"


def _place(found: MapFile, neuron: int) -> tuple[float, float]:
    """A page's y axis points down."""
    return float(found.coordinates[neuron][0]), -float(found.coordinates[neuron][1])


def _corners(found: MapFile, x: float, y: float) -> list[tuple[float, float]]:
    sides = _SIDES[found.topology]
    radius = 0.96 * (1 / math.sqrt(3) if sides == 6 else math.sqrt(0.5))
    turn = math.pi / 2 if sides == 6 else math.pi / 4
    angles = [turn + 2 * math.pi * corner / sides for corner in range(sides)]
    return [(x + radius * math.cos(a), y + radius * math.sin(a)) for a in angles]


def _about(neuron: Mapping[str, Any]) -> dict[str, Any]:
    score, border = neuron["refusal_score"], ""
    if neuron["borderline"]:
        refused = neuron["borderline_refused"]
        border = f"{neuron['borderline']} borderline, {refused} of them refused"
    return {
        "score": None if score is None else f"{score:.1f}",
        "categories": ", ".join(
            f"{name} {c['count']} ({c['lift']:.1f}x)"
            for name, c in list(neuron["categories"].items())[:5]
        ),
        "typical": neuron["typical"],
        "borderline": border,
        "tip": "; ".join(neuron["typical"][:2]),
    }
