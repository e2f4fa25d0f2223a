"""The table of cost.json."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from somatlas.evaluation.cost import Cost, perplexity
from somatlas.evaluation.tables import plain_table, table_text
from somatlas.files import write_text
from somatlas.runs.contents import Contents
from somatlas.runs.folder import Run


def cost_rows(cost: Cost, names: Iterable[str]) -> list[dict[str, Any]]:
    """title, cells (a condition each, by their names) and n of every measure, as a reader is told
    them."""
    rows = []
    for measure in cost.measures:
        conditions = measure["conditions"]
        cells = [_cell(conditions.get(c)) for c in names]
        title = f"{measure['name']} ({measure['unit']})"
        rows.append({"title": title, "cells": cells, "n": measure["n"]})
        if measure["name"] == "text loss":
            cells = [_perplexity(conditions[c]) for c in names]
            rows.append({"title": "perplexity; ratio", "cells": cells, "n": measure["n"]})
    return rows


def cost_text(run: Run) -> str:
    """Write cost.txt of a run whose cost stage is done; returns its text."""
    contents = Contents(run.folder)
    titles = contents.conditions
    table = plain_table("cost; difference from base [95 % interval]", *titles.values(), "n")
    for row in cost_rows(contents.cost, titles):
        table.add_row(row["title"], *row["cells"], str(row["n"]))
    text = table_text(table)
    write_text(run.path("cost.txt"), text)
    return text


def _cell(condition: Mapping[str, float] | None) -> str:
    if condition is None:
        return "-"
    text = f"{condition['mean']:.3g}"
    if "difference" in condition:
        gap, low, high = (condition[name] for name in ("difference", "d_low", "d_high"))
        text += f"; {gap:+.3g} [{low:+.3g}, {high:+.3g}]"
    return text


def _perplexity(loss: Mapping[str, float]) -> str:
    """Of a mean loss; its ratio to base has the interval of the losses' difference."""
    text = f"{perplexity(loss['mean']):.2f}"
    if "difference" in loss:
        gap, low, high = (perplexity(loss[name]) for name in ("difference", "d_low", "d_high"))
        text += f"; x{gap:.3g} [{low:.3g}, {high:.3g}]"
    return text
