"""The figures of the directions, each a function from plain arrays to a figure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from somatlas.report.figures.colours import CHOSEN, COSINES, DIRECTION, HARMFUL, HARMLESS, ink_on
from somatlas.report.figures.drawing import WIDTH, new_figure, small_print

_NUMBERED = 17  # directions whose cosines are written into their cells, at most
_CLOUDS = {"harmless": (HARMLESS, "o"), "harmful": (HARMFUL, "^")}


def plane_figure(
    plane: Mapping[str, Any], chosen: Iterable[int] = (), corners: Mapping[str, str] | None = None
) -> Figure:
    """Representations on two principal components, with arrows from the harmless mean: the mean
    difference (SD) to the harmful mean, and every direction (MD) to its neuron, SD among them.

    plane : what `somatlas.atlases.plane` makes of arrays. chosen : ranks whose arrows are heavy.
    corners : what is written into the corner of panel "sd" and "md", such as their ASR.
    """
    heavy = {int(rank) for rank in chosen}
    figure = new_figure(WIDTH, 3.5)
    panels = dict(zip(("sd", "md"), figure.subplots(1, 2, sharex=True, sharey=True), strict=True))
    start, single = np.asarray(plane["centroids"]["harmless"]), np.asarray(plane["single"])
    for name, axes in panels.items():
        _clouds(axes, plane)
        axes.set_title({"sd": "single direction (SD)", "md": "map (MD)"}[name], fontsize=8)
        if corners and name in corners:
            axes.text(0.97, 0.03, corners[name], transform=axes.transAxes, ha="right", fontsize=7)
        small_print(axes)
    for rank, end in enumerate(np.asarray(plane["ends"]).reshape(-1, 2)):
        _arrow(panels["md"], start, end, 1.8 if rank in heavy else 0.6)
        _end(panels["md"], end, str(rank), rank in heavy)
    for axes in panels.values():
        _arrow(axes, start, single, 1.6, of_sd=True)
        _sd_label(axes, start, single)
    first, second = (100 * share for share in plane["variance"])
    for axes in panels.values():
        axes.set_xlabel(f"first component ({first:.0f} % of the variance)")
    panels["sd"].set_ylabel(f"second ({second:.0f} %)")
    handles, names = panels["sd"].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4, fontsize=7, frameon=False)
    return figure


def _clouds(axes: Axes, plane: Mapping[str, Any]) -> None:
    for name, (colour, mark) in _CLOUDS.items():
        x, y = np.asarray(plane[name]).T
        axes.scatter(x, y, s=9, c=colour, marker=mark, alpha=0.5, linewidths=0, label=name)
    for name, (colour, mark) in _CLOUDS.items():
        axes.plot(
            *plane["centroids"][name],
            mark,
            color=colour,
            markeredgecolor="black",
            markersize=6,
            label=f"{name} mean",
            zorder=5,
        )


def _sd_label(axes: Axes, start: Any, end: Any) -> None:
    """Beyond the arrow's end, where it does not cover the arrow, which may be short."""
    length = float(np.hypot(*(end - start)))
    away = (end - start) / length if length else np.array([1.0, 0.0])
    axes.annotate(
        "SD",
        tuple(end),
        tuple(11 * away),
        textcoords="offset points",
        fontsize=7,
        fontweight="bold",
        ha="center",
        va="center",
        zorder=8,
    )


def _arrow(axes: Axes, start: Any, end: Any, width: float, *, of_sd: bool = False) -> None:
    axes.annotate(
        "",
        tuple(end),
        tuple(start),
        arrowprops={
            "arrowstyle": "->",
            "color": "black" if of_sd else DIRECTION,
            "lw": width,
            "shrinkA": 0,
            "shrinkB": 0,
        },
        zorder=7 if of_sd else 3,  # above the means' marks, which may hide a short one
    )


def _end(axes: Axes, end: Any, text: str, heavy: bool) -> None:
    """The hexagon at an arrow's end, with its rank."""
    axes.plot(
        *end,
        "h",
        color=CHOSEN if heavy else "white",
        markeredgecolor="black",
        markeredgewidth=0.7,
        markersize=8 if heavy else 6,
        zorder=4,
    )
    axes.annotate(
        text,
        tuple(end),
        (4, -6),
        textcoords="offset points",
        fontsize=8 if heavy else 6,
        fontweight="bold" if heavy else "normal",
        zorder=6,
    )


def cosine_figure(
    cosines: ArrayLike,
    chosen: Iterable[int] = (),
    names: Sequence[str] | None = None,
    label: str = "rank",
) -> Figure:
    """Cosines (r, r) between directions: the darker, the more alike.

    names : what the rows are called on the axes, by default 0, 1, ... chosen : rows that are
    starred there. label : what the names are.
    """
    matrix, starred = np.asarray(cosines), {int(row) for row in chosen}
    side = min(WIDTH, 2.2 + 0.26 * len(matrix))
    figure = new_figure(side + 0.7, side)
    axes = figure.add_subplot()
    image = axes.imshow(matrix, cmap=COSINES, vmin=-1, vmax=1)
    rows = names or [str(i) for i in range(len(matrix))]
    marked = [f"{name}*" if i in starred else name for i, name in enumerate(rows)]
    axes.set_xticks(range(len(matrix)), marked, fontsize=7)
    axes.set_yticks(range(len(matrix)), marked, fontsize=7)
    axes.set(xlabel=f"{label} (* chosen)" if starred else label, ylabel=label)
    if len(matrix) <= _NUMBERED:
        for (i, j), value in np.ndenumerate(matrix):
            ink = ink_on(COSINES((value + 1) / 2))
            text = f"{value:.1f}".replace("-0.0", "0.0")
            axes.text(j, i, text, ha="center", va="center", fontsize=5.5, color=ink)
    figure.colorbar(image, ax=axes, shrink=0.8, label="cosine")
    return figure
