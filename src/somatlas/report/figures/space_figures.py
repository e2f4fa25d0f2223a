"""The figures in three dimensions, each a function from plain arrays to a figure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from somatlas.report.figures.colours import CHOSEN, DIRECTION, HARMFUL, HARMLESS
from somatlas.report.figures.drawing import WIDTH, equal_box, new_figure

_PANELS = 4  # of the scaling, at most


def scaling_figure(
    k: ArrayLike,
    harmful: ArrayLike,
    harmless: ArrayLike,
    *,
    stress: ArrayLike,
    compactness: ArrayLike,
    harmless_compactness: ArrayLike,
    distance: ArrayLike,
) -> Figure:
    """The clusters in 3D before, on the way and after ablation, in one frame and to one scale.

    k : (s,) directions ablated. harmful, harmless : (s, n, 3) and (s, m, 3) places on common axes.
    stress : (s,) what three dimensions lose. compactness, harmless_compactness, distance : (s,)
    what is written in as HF sigma, HL sigma and delta mu, measured in all dimensions.
    """
    counts, own, other = (np.asarray(x) for x in (k, harmful, harmless))
    clouds = ((other, HARMLESS, "o", "harmless"), (own, HARMFUL, "^", "harmful"))
    numbers = [np.asarray(x) for x in (harmless_compactness, compactness, distance, stress)]
    shown = np.unique(
        np.linspace(0, len(counts) - 1, min(_PANELS, len(counts))).round().astype(int)
    )
    columns = min(2, len(shown))
    rows = -(-len(shown) // columns)
    figure = new_figure(WIDTH, 3.1 * rows)
    every = np.concatenate([own.reshape(-1, 3), other.reshape(-1, 3)])
    for place, step in enumerate(shown, start=1):
        axes: Any = figure.add_subplot(rows, columns, place, projection="3d")
        for places, colour, mark, name in clouds:
            axes.scatter(
                *places[step].T,
                s=8,
                c=colour,
                marker=mark,
                depthshade=False,
                linewidths=0,
                label=name,
            )
        equal_box(axes, every)
        hl, hf, apart, lost = (float(x[step]) for x in numbers)
        axes.set_title(
            f"k = {counts[step]}   (stress {lost:.2f})\n"
            f"HL σ {hl:.1f}   HF σ {hf:.1f}   Δμ {apart:.1f}",
            fontsize=7,
        )
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=2, fontsize=7, frameon=False)
    return figure


def grid_figure(
    harmful: ArrayLike,
    harmless: ArrayLike,
    neurons: ArrayLike,
    edges: ArrayLike,
    *,
    ranks: Iterable[int | None] = (),
    chosen: Iterable[int] = (),
    variance: ArrayLike = (),
) -> Figure:
    """The map's neurons and the lines of its grid among the prompts, on three axes of one scale.

    harmful, harmless, neurons : (n, 3), (l, 3) and (m, 3) places. edges : (e, 2) pairs of neurons
    that are joined. ranks : (m,) each neuron's rank, None without hits. chosen : ranks that stand
    out. variance : (3,) shares that are written to the axes.
    """
    own, other, places = (np.asarray(x, dtype=np.float64) for x in (harmful, harmless, neurons))
    lines = np.asarray(edges, dtype=np.int64).reshape(-1, 2)
    heavy = {int(rank) for rank in chosen}
    figure = new_figure(WIDTH, 5.0)
    axes: Any = figure.add_subplot(projection="3d", computed_zorder=False)
    for points, colour, mark, name in (
        (other, HARMLESS, "o", "harmless prompt"),
        (own, HARMFUL, "^", "harmful prompt"),
    ):
        axes.scatter(
            *points.T,
            s=8,
            c=colour,
            marker=mark,
            alpha=0.6,
            depthshade=False,
            linewidths=0,
            label=name,
            zorder=1,
        )
    for one, two in lines:
        axes.plot(*places[[one, two]].T, color=DIRECTION, lw=1.1, zorder=2)
    labelled = list(ranks) or [None] * len(places)
    marked = np.array([rank in heavy for rank in labelled])
    for which, colour, size, name in (
        (~marked, "white", 38, "neuron, by rank"),
        (marked, CHOSEN, 60, "chosen"),
    ):
        if which.any():
            axes.scatter(
                *places[which].T,
                s=size,
                c=colour,
                marker="h",
                edgecolors="black",
                linewidths=0.9,
                depthshade=False,
                label=name,
                zorder=3,
            )
    for place, rank in zip(places, labelled, strict=True):
        axes.text(*place, f"  {'–' if rank is None else rank}", fontsize=7, zorder=4)
    equal_box(axes, np.concatenate([own, other, places]))
    shares = [f" ({100 * share:.0f} %)" for share in np.asarray(variance, dtype=np.float64)]
    names = ("first component", "second", "third")
    labels = [name + share for name, share in zip(names, shares or [""] * 3, strict=True)]
    axes.set(xlabel=labels[0], ylabel=labels[1], zlabel=labels[2])
    for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
        axis.label.set_fontsize(7)
        axis.labelpad = -6
    axes.legend(fontsize=7, frameon=False, loc="upper left")
    return figure
