"""The figures of layers, search, steps and stability: functions from plain arrays to figures.

Colours tell harmful from harmless by lightness as well as hue: they stay apart in grey.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from somatlas.report.figures.colours import CHOSEN, DIRECTION, HARMFUL, HARMLESS
from somatlas.report.figures.drawing import WIDTH, new_figure, small_print

_REPEATS = {"samples": ("80 % samples", "o", HARMFUL), "seeds": ("seeds", "D", HARMLESS)}


def layers_figure(
    layers: ArrayLike, refusal_scores: ArrayLike, kl: ArrayLike, chosen: int
) -> Figure:
    """Refusal score (log-odds) and KL (nats) under ablation of each layer's mean difference.

    layers, refusal_scores, kl : (l,). chosen : the layer that is marked.
    """
    figure = new_figure(WIDTH, 2.4)
    left, right = figure.subplots(1, 2)
    for axes, values, label in (
        (left, refusal_scores, "refusal score (log-odds)"),
        (right, kl, "KL on harmless (nats)"),
    ):
        axes.plot(np.asarray(layers), np.asarray(values), "o-", color=DIRECTION, markersize=3)
        axes.axvline(chosen, color=HARMFUL, lw=1, ls="--")
        axes.set(xlabel="layer", ylabel=label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        small_print(axes)
    right.axhline(0.1, color=HARMLESS, lw=1)
    return figure


def front_figure(
    trials: ArrayLike,
    front: ArrayLike,
    chosen: ArrayLike | None = None,
    limit: float | None = None,
) -> Figure:
    """Trials of a search in the plane of drift and attack success.

    trials, front : (n, 2) and (m, 2) of KL in nats and ASR from 0 to 1, NaN where not measured; the
    front is joined as what is reached within a drift. chosen : (2,). limit : the KL allowed.
    """
    figure = new_figure(WIDTH, 3.2)
    axes = figure.add_subplot()
    x, y = _kl_and_percent(trials)
    axes.plot(x, y, "o", color=HARMLESS, markeredgecolor=DIRECTION, markersize=5, label="trial")
    x, y = _kl_and_percent(front)
    order = np.argsort(x, kind="stable")
    axes.plot(
        x[order],
        y[order],
        "s-",
        drawstyle="steps-post",
        color=DIRECTION,
        markersize=5,
        lw=1.2,
        label="no trial is better in both",
    )
    if chosen is not None:
        x, y = _kl_and_percent([chosen])
        axes.plot(x, y, "*", color=CHOSEN, markeredgecolor="black", markersize=14, label="chosen")
    if limit is not None:
        axes.axvline(limit, color=HARMFUL, lw=1, ls="--", label="KL allowed")
    axes.set(xlabel="KL on harmless replies, nats a token", ylabel="ASR on val, %")
    axes.set(xlim=(0, None), ylim=(-3, 103))
    axes.legend(fontsize=7, frameon=False)
    small_print(axes)
    return figure


def _kl_and_percent(points: Any) -> tuple[np.ndarray, np.ndarray]:
    values = np.asarray(points, dtype=np.float64).reshape(-1, 2)
    return values[:, 0], 100 * values[:, 1]


def steps_figure(
    k: ArrayLike,
    *,
    asr: ArrayLike,
    kl: ArrayLike,
    compactness: ArrayLike,
    harmless_compactness: ArrayLike,
    ratio: ArrayLike,
    distance: ArrayLike,
) -> Figure:
    """What changes while directions are ablated one after another; every array is (s,).

    k : directions ablated. asr : 0 to 1. kl : nats a token on harmless replies. compactness,
    harmless_compactness : mean distance of either cluster to its centroid. ratio : harmful over
    harmless, None or NaN where it has none. distance : of the two centroids.
    """
    figure = new_figure(WIDTH, 3.6)
    counts = np.asarray(k)
    panels: tuple[tuple[str, list[tuple[Any, str, str, str]]], ...] = (
        ("ASR, %", [(100 * np.asarray(asr), DIRECTION, "o", "")]),
        ("KL on harmless replies,\nnats a token", [(kl, DIRECTION, "o", "")]),
        ("distance of the\ntwo centroids", [(distance, DIRECTION, "o", "")]),
        (
            "mean distance\nto own centroid",
            [
                (harmless_compactness, HARMLESS, "o", "harmless"),
                (compactness, HARMFUL, "^", "harmful"),
            ],
        ),
        ("harmful over harmless", [(ratio, DIRECTION, "o", "")]),
    )
    grid = figure.subplots(2, 3, sharex=True)
    for axes, (label, lines) in zip(grid.flat, panels, strict=False):
        most = 0.0
        for values, colour, mark, name in lines:
            numbers = np.asarray(values, dtype=np.float64)
            axes.plot(counts, numbers, f"{mark}-", color=colour, markersize=4, label=name)
            most = max(most, *numbers[np.isfinite(numbers)], 0.0)
        axes.set(ylabel=label, ylim=(0, 1.05 * most or 1), xticks=counts)
        if len(lines) > 1:
            axes.legend(fontsize=7, frameon=False, loc="lower left")
        small_print(axes)
    grid[1, 1].axhline(1, color=HARMLESS, lw=1, ls="--", zorder=0)
    grid[1, 2].axis("off")
    for axes in (*grid[1, :2], grid[0, 2]):
        axes.set_xlabel("directions ablated")
    grid[0, 2].tick_params(labelbottom=True)
    return figure


def stability_figure(
    stability: Mapping[str, Mapping[str, Any]], floors: Iterable[str] = ()
) -> Figure:
    """How alike the directions of two repeats are, a row a method, mean and 90 % range.

    stability : by method, what `somatlas.atlases.stability` returns. floors : methods whose rows
    are marked as learning nothing.
    """
    names, unlearned = list(stability), set(floors)
    figure = new_figure(WIDTH, 1.2 + 0.34 * len(names))
    panels = (
        (_measure("matched_cosine"), "cosine of matched\ndirections", 1),
        (_beyond_sd, "the same, SD\nprojected out", 1),
        (_measure("largest_angle"), "largest principal\nangle, degrees", 90),
        (_measure("rand"), "adjusted Rand index\nof the partitions", 1),
    )
    grid = figure.subplots(1, len(panels), sharey=True)
    for axes, (measure, label, most) in zip(grid, panels, strict=True):
        for row, name in enumerate(names):
            _repeats(axes, row, {which: measure(stability[name], which) for which in _REPEATS})
        axes.set(xlim=(-0.05 * most, 1.05 * most), ylim=(len(names) - 0.5, -0.5), xlabel=label)
        axes.set_xticks([0, most / 2, most])
        small_print(axes)
    titles = [f"{name}, floor" if name in unlearned else name for name in names]
    grid[0].set_yticks(range(len(names)), titles)
    handles = [
        axes.plot([], [], mark, color=colour, markeredgecolor="black", markersize=5, label=title)[0]
        for title, mark, colour in _REPEATS.values()
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=2, fontsize=8, frameon=False)
    return figure


Spread = Mapping[str, float] | None


def _measure(name: str) -> Callable[[Mapping[str, Any], str], Spread]:
    return lambda record, which: record[which][name]


def _beyond_sd(record: Mapping[str, Any], which: str) -> Spread:
    free = record.get("without_sd")
    return None if free is None else free[which]["matched_cosine"]


def _repeats(axes: Axes, row: int, found: Mapping[str, Mapping[str, float] | None]) -> None:
    """A method's mean and range over samples and, below it, over seeds."""
    for shift, (which, (_, mark, colour)) in zip((-0.16, 0.16), _REPEATS.items(), strict=True):
        if (spread := found[which]) is None:
            continue
        y = row + shift
        axes.plot([spread["low"], spread["high"]], [y, y], color=colour, lw=3, alpha=0.6)
        axes.plot(spread["mean"], y, mark, color=colour, markeredgecolor="black", markersize=5)
    if all(spread is None for spread in found.values()):
        middle = sum(axes.get_xlim()) / 2
        axes.text(middle, row, "none", ha="center", va="center", fontsize=6, color="0.4")
