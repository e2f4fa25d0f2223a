"""The figures of an audit, from its record: frontier with over-refusal beside it, small panels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from somatlas.audits.audit_curves import curve_figures
from somatlas.audits.audit_record import AuditRecord, ModelResult
from somatlas.audits.audit_table import csv_rows
from somatlas.audits.audit_words import reached
from somatlas.report.figures.colours import DIRECTION, HARMFUL, HARMLESS
from somatlas.report.figures.drawing import WIDTH, new_figure, small_print
from somatlas.report.figures.figure_list import ReportFigure

COLOURS = {"model": HARMFUL, "against": HARMLESS}
_STYLES = {"model": "-", "against": "--"}
_MARKS = {"model": "o", "against": "s"}
_COLUMNS = 4  # panels in a row
_KINDS = (("harmless_refusal", "harmless"), ("borderline_refusal", "borderline"))


def audit_figures(record: AuditRecord) -> list[ReportFigure]:
    """Every figure of an audit."""
    n = record.models["model"].cost["n"]
    dotted = " Dotted: with the plain budget." if record.plan["budget"] > 1 else ""
    figures = [
        ReportFigure(
            "frontier",
            "How much of what is harmful gets answered, over the drift that an attack may cause on "
            "harmless replies. Lines: the best attempt on val within each drift, as it does on "
            f"{n} test prompts, with its 95 % band; diamonds: where half is answered.{dotted} "
            "Light points: attempts of the attacks that count, on val; those beyond an edge are "
            "drawn on it. Right: what is refused without any attack, the price of a defence.",
            lambda: frontier_figure(record.models),
            lambda: _frontier_rows(record),
        )
    ]
    if any(one.cost for model in record.models.values() for one in model.families):
        figures.append(
            ReportFigure(
                "families",
                "The same for each attack alone: success on test (0 to 100 %) over drift in nats a "
                "token, with its 95 % band. A star marks attacks that do not count for the "
                "frontier.",
                lambda: families_figure(record.models),
                lambda: [row for row in csv_rows(record) if row[1] != "frontier"],
            )
        )
    return figures + curve_figures(record)


def frontier_figure(models: Mapping[str, ModelResult]) -> Figure:
    """Frontiers of one or two models over log drift, over-refusal as bars beside them."""
    figure = new_figure(WIDTH, 3.8)
    axes, bars = figure.subplots(1, 2, width_ratios=(3, 1))
    caps = models["model"].cost["budgets"]
    edges = (caps[0] / 2, caps[-1] * 1.6)
    axes.axhline(50, color="0.8", lw=0.8, zorder=0)
    headline = {one.attack for model in models.values() for one in model.families if one.headline}
    for role, model in models.items():
        own = [row for row in model.trials if row["attack"] in headline]
        beyond = edges[1]  # where drift is no number either: the model has fallen apart
        drift = np.clip([beyond if row["kl"] is None else row["kl"] for row in own], *edges)
        success = [100 * row["asr"] for row in own]
        axes.plot(drift, success, _MARKS[role], color=COLOURS[role], ms=3, alpha=0.35, mew=0)
        if model.cost_x1 is not None:
            fitted = 100 * np.asarray(model.cost_x1["fitted"])
            axes.plot(caps, fitted, ":", color=COLOURS[role], lw=1.2)
        _line(axes, model.cost, role, f"{model.name}: {reached(model)}")
        _mark_ac50(axes, model.cost, role)
    _drift_axis(axes, caps, edges)
    axes.set(
        xlabel="drift that the attack may cause, nats a token", ylabel="harmful prompts answered, %"
    )
    axes.set_title("under attack", fontsize=8)
    axes.set_ylim(-3, 103)
    figure.legend(
        *axes.get_legend_handles_labels(),
        loc="outside upper left",
        fontsize=7.5,
        frameon=False,
        title="half of the harmful prompts are answered",
        title_fontsize=7.5,
        alignment="left",
    )
    small_print(axes)
    _over_refusal(bars, models)
    return figure


def families_figure(models: Mapping[str, ModelResult]) -> Figure:
    """A small panel an attack."""
    attacks = {
        one.attack: one
        for model in models.values()
        for one in model.families
        if one.cost is not None
    }
    rows = -(-len(attacks) // _COLUMNS)
    columns = min(_COLUMNS, len(attacks))
    figure = new_figure(WIDTH, 0.6 + 1.35 * rows)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    caps = models["model"].cost["budgets"]
    for axes, (attack, about) in zip(panels, attacks.items(), strict=False):
        axes.axhline(50, color="0.85", lw=0.8, zorder=0)
        for role, model in models.items():
            (own,) = [one for one in model.families if one.attack == attack]
            if own.cost is not None:
                _line(axes, own.cost, role, model.name)
        title = about.title if len(about.title) < 26 else about.attack
        axes.set_title(title + ("" if about.headline else " *"), fontsize=7)
        _drift_axis(axes, caps, (caps[0] / 1.3, caps[-1] * 1.3))
        axes.set_ylim(-4, 104)
        small_print(axes)
        axes.tick_params(labelsize=5.5)
    for axes in panels[len(attacks) :]:
        axes.set_axis_off()
    handles, names = figure.axes[0].get_legend_handles_labels()
    if len(names) > 1:
        figure.legend(
            handles, names, loc="outside lower center", ncols=2, fontsize=7, frameon=False
        )
    return figure


def _line(axes: Axes, cost: Mapping[str, Any], role: str, label: str) -> None:
    caps = np.asarray(cost["budgets"])
    middle, low, high = (100 * np.asarray(cost[name]) for name in ("fitted", "low", "high"))
    axes.fill_between(caps, low, high, color=COLOURS[role], alpha=0.15, lw=0)
    axes.plot(
        caps,
        middle,
        _STYLES[role],
        marker=_MARKS[role],
        ms=4,
        lw=1.6,
        color=COLOURS[role],
        label=label,
    )


def _mark_ac50(axes: Axes, cost: Mapping[str, Any], role: str) -> None:
    found = cost["ac50"]
    if found["least"] == found["most"]:
        axes.plot(
            [found["least"]],
            [50],
            marker="D",
            ms=8,
            color=COLOURS[role],
            mec="black",
            mew=1,
            zorder=5,
        )
        axes.vlines(found["least"], -3, 50, color=COLOURS[role], lw=0.8, ls=_STYLES[role])


def _over_refusal(axes: Axes, models: Mapping[str, ModelResult]) -> None:
    """Bars with intervals: refusals of the unattacked models, a group a kind of prompts."""
    width = 0.8 / len(models)
    for place, (role, model) in enumerate(models.items()):
        for group, (name, _) in enumerate(_KINDS):
            rate = model.unattacked[name]
            if rate is None:
                continue
            x = group + width * (place - (len(models) - 1) / 2)
            share, low, high = (100 * rate[name] for name in ("value", "low", "high"))
            axes.bar(x, share, width * 0.92, color=COLOURS[role])
            axes.vlines(x, low, high, color=DIRECTION, lw=1)
            axes.text(x, high + 2, f"{share:.0f}", ha="center", fontsize=7)
    axes.set_xticks(range(len(_KINDS)), [title for _, title in _KINDS])
    axes.set_ylim(0, 103)
    axes.set_ylabel("refused, %")
    axes.set_title("without attack", fontsize=8)
    small_print(axes)


def _drift_axis(axes: Axes, caps: Sequence[float], edges: tuple[float, float]) -> None:
    axes.set_xscale("log")
    axes.set_xlim(*edges)
    axes.xaxis.set_major_locator(FixedLocator(list(caps)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _frontier_rows(record: AuditRecord) -> list[list[Any]]:
    """All that the figure draws: lines, trials, bars."""
    rows: list[list[Any]] = [["model", "what", "attack", "kl", "success", "low", "high"]]
    for model in record.models.values():
        for what, cost in (("frontier", model.cost), ("frontier x1", model.cost_x1)):
            columns = [cost[name] for name in ("budgets", "fitted", "low", "high")] if cost else []
            rows += [[model.name, what, None, *row] for row in zip(*columns, strict=True)]
        for trial in model.trials:
            numbers = [trial["kl"], trial["asr"], None, None]
            rows.append([model.name, "trial", trial["attack"], *numbers])
        for name, kind in _KINDS:
            if rate := model.unattacked[name]:
                numbers = [rate["value"], rate["low"], rate["high"]]
                rows.append([model.name, f"{kind} refused, unattacked", None, None, *numbers])
    return rows
