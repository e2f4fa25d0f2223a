"""The figures of the search and the atlas, each a function from plain arrays to a figure.

Colours tell harmful from harmless by lightness as well as hue: they stay apart in grey.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from somatlas.report.colours import CHOSEN, COSINES, DIRECTION, HARMFUL, HARMLESS, ink_on

WIDTH = 6.3  # inches: the text width of a paper
_NUMBERED = 16  # directions whose cosines are written into their cells, at most
_REPEATS = {"samples": ("80 % samples", "o", HARMFUL), "seeds": ("seeds", "D", HARMLESS)}


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _small(axes: Axes) -> None:
    axes.tick_params(labelsize=7)
    axes.xaxis.label.set_fontsize(8)
    axes.yaxis.label.set_fontsize(8)


def layers_figure(
    layers: ArrayLike, refusal_scores: ArrayLike, kl: ArrayLike, chosen: int
) -> Figure:
    """Refusal score (log-odds) and KL (nats) under ablation of each layer's mean difference.

    layers, refusal_scores, kl : (l,). chosen : the layer that is marked.
    """
    figure = _figure(WIDTH, 2.4)
    left, right = figure.subplots(1, 2)
    for axes, values, label in (
        (left, refusal_scores, "refusal score (log-odds)"),
        (right, kl, "KL on harmless (nats)"),
    ):
        axes.plot(np.asarray(layers), np.asarray(values), "o-", color=DIRECTION, markersize=3)
        axes.axvline(chosen, color=HARMFUL, lw=1, ls="--")
        axes.set(xlabel="layer", ylabel=label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _small(axes)
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
    figure = _figure(WIDTH, 3.2)
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
    _small(axes)
    return figure


def _kl_and_percent(points: Any) -> tuple[np.ndarray, np.ndarray]:
    values = np.asarray(points, dtype=np.float64).reshape(-1, 2)
    return values[:, 0], 100 * values[:, 1]


def steps_figure(
    k: ArrayLike, *, asr: ArrayLike, kl: ArrayLike, compactness: ArrayLike, distance: ArrayLike
) -> Figure:
    """What changes while directions are ablated one after another; every array is (s,).

    k : directions ablated. asr : 0 to 1. kl : nats a token on harmless replies. compactness : mean
    distance of harmful representations to their centroid. distance : of the two centroids.
    """
    figure = _figure(WIDTH, 3.6)
    panels = (
        (100 * np.asarray(asr), "ASR, %"),
        (np.asarray(kl), "KL on harmless replies,\nnats a token"),
        (np.asarray(compactness), "harmful cluster: mean\ndistance to its centroid"),
        (np.asarray(distance), "distance of the\ntwo centroids"),
    )
    grid = figure.subplots(2, 2, sharex=True)
    for axes, (values, label) in zip(grid.flat, panels, strict=True):
        axes.plot(np.asarray(k), values, "o-", color=DIRECTION, markersize=4)
        axes.set(ylabel=label, ylim=(0, 1.05 * float(values.max()) or 1), xticks=np.asarray(k))
        _small(axes)
    for axes in grid[1]:
        axes.set_xlabel("directions ablated")
    return figure


def scaling_figure(
    k: ArrayLike, harmful: ArrayLike, harmless: ArrayLike, stress: ArrayLike
) -> Figure:
    """The clusters in 3D (classical scaling) before, half way through and after ablation.

    k, stress : (s,) directions ablated and what the scaling loses. harmful, harmless : (s, n, 3)
    and (s, m, 3) places.
    """
    counts, lost = np.asarray(k), np.asarray(stress)
    clouds = ((np.asarray(harmless), HARMLESS, "o"), (np.asarray(harmful), HARMFUL, "^"))
    shown = sorted({0, len(counts) // 2, len(counts) - 1})
    figure = _figure(WIDTH, 2.4)
    for place, step in enumerate(shown, start=1):
        axes = figure.add_subplot(1, len(shown), place, projection="3d")
        for places, colour, mark in clouds:
            axes.scatter(
                *places[step].T, s=8, c=colour, marker=mark, depthshade=False, linewidths=0
            )
        axes.set_title(f"k = {counts[step]}  (stress {lost[step]:.2f})", fontsize=8)
        axes.tick_params(labelsize=0, length=0)
        axes.set(xticklabels=[], yticklabels=[], zticklabels=[])
    return figure


def plane_figure(plane: Mapping[str, Any], chosen: Iterable[int] = ()) -> Figure:
    """Representations on two principal components, their centroids, and every direction as an
    arrow from the harmless centroid; longer arrows lie more in the plane.

    plane : what `somatlas.atlas.plane` makes of arrays. chosen : ranks whose arrows are heavy.
    """
    heavy_ranks = {int(rank) for rank in chosen}
    figure = _figure(WIDTH, 4.2)
    axes = figure.add_subplot()
    marks = {"harmless": (HARMLESS, "o"), "harmful": (HARMFUL, "^")}
    for name, (colour, mark) in marks.items():
        x, y = np.asarray(plane[name]).T
        axes.scatter(x, y, s=9, c=colour, marker=mark, alpha=0.55, linewidths=0, label=name)
    for name, (colour, mark) in marks.items():
        x, y = plane["centroids"][name]
        axes.plot(
            x, y, mark, color=colour, markeredgecolor="black", markersize=9, label=f"{name} mean"
        )
    start = np.asarray(plane["centroids"]["harmless"])
    reach = 0.9 * float(np.ptp(np.concatenate([plane["harmful"], plane["harmless"]]), axis=0).min())
    for rank, direction in enumerate(np.asarray(plane["directions"])):
        heavy = rank in heavy_ranks
        tip = start + reach * direction
        axes.annotate(
            "",
            (tip[0], tip[1]),
            (start[0], start[1]),
            arrowprops={
                "arrowstyle": "->",
                "color": DIRECTION,
                "lw": 1.6 if heavy else 0.6,
                "shrinkA": 0,
                "shrinkB": 0,
            },
        )
        axes.annotate(
            str(rank),
            (tip[0], tip[1]),
            fontsize=8 if heavy else 6,
            fontweight="bold" if heavy else "normal",
            color=DIRECTION,
        )
    first, second = (100 * share for share in plane["variance"])
    axes.set(
        xlabel=f"first component ({first:.0f} % of the variance)",
        ylabel=f"second ({second:.0f} %)",
    )
    axes.legend(fontsize=7, frameon=False)
    return figure


def cosine_figure(cosines: ArrayLike, chosen: Iterable[int] = ()) -> Figure:
    """Cosines (r, r) between directions, in rank order: the darker, the more alike.

    chosen : ranks that are marked on the axes.
    """
    matrix, starred = np.asarray(cosines), {int(rank) for rank in chosen}
    side = min(WIDTH, 2.2 + 0.26 * len(matrix))
    figure = _figure(side + 0.7, side)
    axes = figure.add_subplot()
    image = axes.imshow(matrix, cmap=COSINES, vmin=-1, vmax=1)
    names = [f"{i}*" if i in starred else str(i) for i in range(len(matrix))]
    axes.set_xticks(range(len(matrix)), names, fontsize=7)
    axes.set_yticks(range(len(matrix)), names, fontsize=7)
    axes.set(xlabel="rank (* chosen)", ylabel="rank")
    if len(matrix) <= _NUMBERED:
        for (i, j), value in np.ndenumerate(matrix):
            ink = ink_on(COSINES((value + 1) / 2))
            text = f"{value:.1f}".replace("-0.0", "0.0")
            axes.text(j, i, text, ha="center", va="center", fontsize=5.5, color=ink)
    figure.colorbar(image, ax=axes, shrink=0.8, label="cosine")
    return figure


def stability_figure(
    stability: Mapping[str, Mapping[str, Any]], floors: Iterable[str] = ()
) -> Figure:
    """How alike the directions of two repeats are, a row a method, mean and 90 % range.

    stability : by method, what `somatlas.atlas.stability` returns. floors : methods whose rows are
    marked as learning nothing.
    """
    names, unlearned = list(stability), set(floors)
    figure = _figure(WIDTH, 1.2 + 0.34 * len(names))
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
        _small(axes)
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
