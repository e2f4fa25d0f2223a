"""The table of cost.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from somatlas.evaluation.cost import perplexity
from somatlas.evaluation.evaluation import CONDITIONS
from somatlas.files import read_json, write_text
from somatlas.report.tables import plain_table, table_text
from somatlas.runs.folder import Run


def cost_rows(cost: Mapping[str, Any]) -> list[dict[str, Any]]:
    """title, cells (a condition each) and n of every measure, as a reader is told them."""
    rows = []
    for measure in cost["measures"]:
        conditions = measure["conditions"]
        cells = [_cell(conditions.get(c)) for c in CONDITIONS]
        title = f"{measure['name']} ({measure['unit']})"
        rows.append({"title": title, "cells": cells, "n": measure["n"]})
        if measure["name"] == "text loss":
            cells = [_perplexity(conditions[c]) for c in CONDITIONS]
            rows.append({"title": "perplexity; ratio", "cells": cells, "n": measure["n"]})
    return rows


def cost_text(run: Run) -> str:
    """Write cost.txt of a run whose cost stage is done; returns its text."""
    table = plain_table("cost; difference from base [95 % interval]", "base", "SD", "MD", "n")
    for row in cost_rows(read_json(run.path("cost.json"))):
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
