"""Figures of attacks that go step by step: success and drift on val over their steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from somatlas.audits.audit_record import AuditRecord, ModelResult
from somatlas.report.figures.drawing import WIDTH, new_figure, small_print
from somatlas.report.figures.figure_list import ReportFigure


@dataclass(frozen=True)
class Curve:
    """Attempts that are told by a number of their `about`. name : of the figure. step : that
    number. parted : what else of `about` parts lines. title : of the axis. caption : below it."""

    name: str
    step: str
    parted: tuple[str, ...]
    title: str
    caption: str


CURVES = (
    Curve(
        "phases",
        "phase",
        ("source",),
        "phase",
        "Directions extracted again under the ablation so far, phase after phase: harmful prompts "
        "answered, and drift, on val. A refusal that comes back after a phase was only moved.",
    ),
    Curve(
        "relearning",
        "steps",
        ("replies", "rate"),
        "steps of fine-tuning",
        "Fine-tuning on some of the model's own compliant replies: harmful prompts answered, and "
        "drift, on val.",
    ),
)

_LARGEST = 3  # cells that are told by what they hold
_TOGETHER = (
    2 / 3
)  # of a cell's prompts that were in one cell of the first map: it is that one again


def curve_figures(record: AuditRecord) -> list[ReportFigure]:
    """Those of which some model has two steps at least."""
    found = []
    for curve in CURVES:
        rows = curve_rows(record, curve)
        if len({row[2] for row in rows}) > 1:
            found.append(_figure(curve, rows))
    return found


def curve_rows(record: AuditRecord, curve: Curve) -> list[list[Any]]:
    """Model, line, step, success, drift of each attempt, by model, line and step."""
    rows = [
        [
            model.name,
            _part(trial["about"], curve.parted),
            trial["about"][curve.step],
            trial["asr"],
            trial["kl"],
        ]
        for model in record.models.values()
        for trial in model.trials
        if curve.step in trial["about"]
    ]
    order = [model.name for model in record.models.values()]
    return sorted(rows, key=lambda row: (order.index(row[0]), row[1], row[2]))


def cell_rows(model: ModelResult) -> list[list[str]]:
    """Of the map made again after each phase of ablation: phase, success and drift on val, cells
    that hold prompts, how many hold together what one cell of the first map held, how long
    directions still are, and what the largest cells hold."""
    rows = []
    for trial in model.trials:
        cells = [cell for cell in trial["about"].get("cells", ()) if cell["prompts"]]
        if not cells:
            continue
        largest = sorted(cells, key=lambda cell: -cell["prompts"])[:_LARGEST]
        length = sum(cell["prompts"] * cell["length"] for cell in cells)
        rows.append(
            [
                str(trial["about"]["phase"]),
                f"{100 * trial['asr']:.0f}",
                "-" if trial["kl"] is None else f"{trial['kl']:.3f}",
                str(len(cells)),
                str(sum(cell["share"] >= _TOGETHER for cell in cells)),
                f"{length / sum(cell['prompts'] for cell in cells):.2f}",
                ", ".join(f"{cell['category'] or 'any'} ({cell['prompts']})" for cell in largest),
            ]
        )
    return rows


def _part(about: Mapping[str, Any], names: Sequence[str]) -> str:
    return ", ".join(f"{about[name]}" for name in names if name in about)


def _title(curve: Curve) -> str:
    return ", ".join(curve.parted)


def _figure(curve: Curve, rows: Sequence[Sequence[Any]]) -> ReportFigure:
    header = ["model", _title(curve), curve.step, "success", "kl"]
    return ReportFigure(
        curve.name, curve.caption, lambda: _drawn(curve, rows), lambda: [header, *rows]
    )


def _drawn(curve: Curve, rows: Sequence[Sequence[Any]]) -> Figure:
    """A column a model: success above, drift below, a line a part."""
    names = list(dict.fromkeys(row[0] for row in rows))
    figure = new_figure(WIDTH, 3.6)
    panels = figure.subplots(2, len(names), sharex=True, sharey="row", squeeze=False)
    for column, name in enumerate(names):
        lines: Mapping[str, list[Sequence[Any]]] = {
            part: [row for row in rows if row[:2] == [name, part]]
            for part in dict.fromkeys(row[1] for row in rows if row[0] == name)
        }
        for place, (part, own) in enumerate(lines.items()):
            style = {"marker": "osD^v"[place % 5], "ms": 4, "lw": 1.2, "color": f"C{place}"}
            steps = [row[2] for row in own]
            panels[0, column].plot(steps, [100 * row[3] for row in own], label=part, **style)
            panels[1, column].plot(steps, [row[4] for row in own], **style)
        panels[0, column].axhline(50, color="0.85", lw=0.8, zorder=0)
        panels[0, column].set_title(name, fontsize=8)
        panels[0, column].set_ylim(-3, 103)
        panels[1, column].set_xlabel(curve.title)
        panels[1, column].xaxis.set_major_locator(MaxNLocator(integer=True))
    panels[0, 0].set_ylabel("answered, %")
    panels[1, 0].set_ylabel("drift, nats a token")
    if len({row[1] for row in rows}) > 1:
        panels[0, 0].legend(fontsize=6.5, frameon=False, title=_title(curve), title_fontsize=6.5)
    for axes in panels.ravel():
        small_print(axes)
    return figure
