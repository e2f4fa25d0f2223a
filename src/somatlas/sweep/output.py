"""A sweep's files: sweep.json, sweep.csv, table.txt and the figure with its data."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from somatlas.evaluation.tables import plain_table, table_text
from somatlas.files import write_json, write_text
from somatlas.report.figures.drawing import laid_out, save_figure, save_pdf, svg
from somatlas.report.format import nats_text, rate_text
from somatlas.sweep.figure import sweep_figure
from somatlas.sweep.plan import Plan
from somatlas.sweep.results import MEASURES, Measured, pooled_lines

INTERVALS = (
    "95 %. One point: Wilson over prompts; of KL a bootstrap over harmless replies. Over seeds: a "
    "bootstrap that draws seeds and prompts (for KL seeds and replies), of a rate at least "
    "Wilson's over the prompts. Few seeds show too little of how seeds differ."
)


def write_record(
    plan: Plan, rows: Sequence[Measured], failed: Mapping[str, str], lines: Any
) -> None:
    """Write sweep.json. failed : points that could not be made, and why. lines : None until every
    point was tried."""
    write_json(
        plan.folder / "sweep.json",
        {
            "model": plan.points[0].run.config.model,
            "over": {axis.setting: list(axis.values) for axis in plan.axes},
            "until": plan.stages[-1],
            "settings": dict(plan.given),
            "points": [point.row for point in rows],
            "failed": dict(failed),
            "intervals": INTERVALS,
            "lines": lines,
        },
    )


def write_results(plan: Plan, rows: Sequence[Measured], failed: Mapping[str, str]) -> str:
    """Write every file of a sweep that came to its end; returns the table's text."""
    x = plan.x.setting
    lines = pooled_lines(rows, x, plan.parts)
    write_record(plan, rows, failed, lines)
    write_text(plan.folder / "sweep.csv", _csv(_point_rows(plan, rows)))
    figure = laid_out(sweep_figure(x, plan.x.values, _named(lines), _single(rows)))
    write_text(plan.folder / "figure.svg", svg(figure))
    save_pdf(figure, plan.folder / "figure.pdf")
    save_figure(figure, plan.folder / "figure.png")
    write_text(plan.folder / "figure.csv", _csv(_line_rows(x, plan.parts, lines)))
    text = _table(plan, rows, lines)
    write_text(plan.folder / "table.txt", text)
    return text


def _named(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Points of each line by what tells it apart."""
    return {_title(line["settings"]): line["points"] for line in lines}


def _title(settings: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items()) or "MD"


def _single(rows: Sequence[Measured]) -> Mapping[str, Any] | None:
    """SD's ASR and KL where they are the same at every point."""
    found = [{name: point.row["sd"][name] for name in ("asr", "kl")} for point in rows]
    middles = {(one["asr"]["rate"], one["kl"]["mean"]) for one in found}
    return found[0] if len(middles) == 1 else None


def _cells(measure: Mapping[str, Any]) -> list[Any]:
    return [next(iter(measure.values())), measure["low"], measure["high"], measure["n"]]


def _columns(name: str) -> list[str]:
    return [name, f"{name}_low", f"{name}_high", f"{name}_n"]


def _line_rows(x: str, parts: Sequence[str], lines: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    header = [*parts, x, "seeds", *(c for name in MEASURES for c in _columns(name))]
    return [
        header,
        *(
            [
                *line["settings"].values(),
                point[x],
                " ".join(point["seeds"]),
                *(cell for name in MEASURES for cell in _cells(point[name])),
            ]
            for line in lines
            for point in line["points"]
        ),
    ]


def _point_rows(plan: Plan, rows: Sequence[Measured]) -> list[list[Any]]:
    """A row a point, with every rate that evaluation.json has of it."""
    settings = [axis.setting for axis in plan.axes]
    rates = list(dict.fromkeys(name for point in rows for name in _rates(point)))
    header: list[Any] = ["name", *settings, "layer", "ranks", "val_asr", "val_n", "selection_asr"]
    header += ["selection_n", "optimism", *(c for name in rates for c in _columns(name))]
    table = [header]
    for point in rows:
        row = point.row
        searched = [row[part] or {"rate": None, "n": None} for part in ("val", "selection")]
        found = _rates(point)
        table.append(
            [
                row["name"],
                *(point.values[name] for name in settings),
                row["layer"],
                " ".join(map(str, row["ranks"])),
                *(cell for part in searched for cell in (part["rate"], part["n"])),
                row["optimism"],
                *(
                    c
                    for name in rates
                    for c in (_cells(found[name]) if name in found else [None] * 4)
                ),
            ]
        )
    return table


def _rates(point: Measured) -> dict[str, Any]:
    test = point.row["test"]
    return {
        n: v for n, v in test.items() if isinstance(v, Mapping) and {"low", "high", "n"} <= v.keys()
    }


def _csv(rows: Sequence[Sequence[Any]]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue()


def _table(plan: Plan, rows: Sequence[Measured], lines: Sequence[Mapping[str, Any]]) -> str:
    x, several = plan.x.setting, any(axis.setting == "seed" for axis in plan.axes)
    table = plain_table(
        "test split, % [95 %]",
        x,
        *(["seeds"] if several else []),
        "ASR",
        "refusal",
        "incoherent",
        "off topic",
        "KL, nats a token",
        "ASR on val",
        "on selection",
    )
    for line in lines:
        for point in line["points"]:
            own = [
                r
                for r in rows
                if r.values[x] == point[x]
                and all(r.values[n] == value for n, value in line["settings"].items())
            ]
            table.add_row(
                _title(line["settings"]),
                point[x],
                *([str(max(1, len(point["seeds"])))] if several else []),
                *(rate_text(point[name]) for name in ("asr", "refusal", "babble", "off_topic")),
                _drift_text(point["kl"]),
                *(_mean(own, part) for part in ("val", "selection")),
            )
    return (
        table_text(table)
        + textwrap.indent(textwrap.fill(f"intervals: {INTERVALS}", 98), "  ")
        + "\n"
    )


def _drift_text(drift: Mapping[str, Any]) -> str:
    """A mean KL with its interval."""
    if drift["mean"] is None:
        return "-"
    return nats_text(drift["mean"], drift["low"], drift["high"])


def _mean(points: Sequence[Measured], part: str) -> str:
    values = [point.row[part]["rate"] for point in points if point.row[part]]
    return f"{100 * sum(values) / len(values):.0f}" if values else "-"
