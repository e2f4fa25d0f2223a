"""The figures of the controls, each a function from plain arrays to a figure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from somatlas.report.figures.colours import CHOSEN, DIRECTION, HARMFUL, HARMLESS
from somatlas.report.figures.drawing import new_figure


def knobs_figure(
    cells: ArrayLike, sd: ArrayLike, base: ArrayLike, chosen: Iterable[int] = ()
) -> Figure:
    """What ablating each direction alone leaves of refusal and of over-refusal.

    cells : (c, 2) shares of harmful and of borderline prompts refused, 0 to 1, in rank order; those
    at one place share a label. sd, base : (2,), the single direction and the model as it is.
    chosen : ranks that are filled.
    """
    points = 100 * np.asarray(cells, dtype=np.float64).reshape(-1, 2)
    filled = {int(rank) for rank in chosen}
    figure = new_figure(4.6, 3.8)
    axes = figure.add_subplot()
    for (x, y), mark, colour, size, label in (
        (100 * np.asarray(base, dtype=np.float64), "s", HARMLESS, 7, "model as it is"),
        (100 * np.asarray(sd, dtype=np.float64), "*", HARMFUL, 14, "SD"),
    ):
        axes.plot(x, y, mark, color=colour, markeredgecolor="black", markersize=size, label=label)
    places: dict[tuple[float, float], list[int]] = defaultdict(list)
    for rank, (x, y) in enumerate(points):
        places[float(x), float(y)].append(rank)
    for own, title in ((True, "a chosen direction alone"), (False, "another direction alone")):
        here = np.array([p for p, ranks in places.items() if bool(filled & {*ranks}) == own])
        if len(here):
            face = CHOSEN if own else "white"
            axes.plot(*here.T, "o", color=face, markeredgecolor=DIRECTION, ms=6, label=title)
    for place, ranks in places.items():
        text = ", ".join(map(str, ranks))
        axes.annotate(text, place, (4, 3), textcoords="offset points", fontsize=6.5)
    axes.set(xlabel="harmful prompts refused, %", ylabel="borderline prompts refused, %")
    axes.set(xlim=(-4, 104), ylim=(-4, 104))
    axes.tick_params(labelsize=7)
    axes.legend(fontsize=7, frameon=False, loc="upper left")
    return figure
