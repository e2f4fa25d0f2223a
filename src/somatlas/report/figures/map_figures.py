"""The map's figure, from plain arrays."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import RegularPolygon
from numpy.typing import ArrayLike

from somatlas.report.figures.colours import CHOSEN, U_MATRIX, ink_on

VOID = "a cell's place means nothing: neighbours here are none in space"


def map_figure(
    coordinates: ArrayLike,
    u_matrix: ArrayLike | None,
    hits: ArrayLike,
    neurons: ArrayLike,
    *,
    topology: str = "hexagonal",
    chosen: Iterable[int] = (),
    title: str = "",
) -> Figure:
    """The map: one cell a neuron, coloured by the U-matrix, with rank and hit count.

    coordinates : (m, 2) places on the grid. u_matrix : (m,), or None where neighbours on the grid
    are none in space: cells are then plain, and that is said below them. hits : (m,). neurons :
    (r,) the neuron of each rank. chosen : ranks whose cells get a heavy outline. A neuron without
    hits has no rank.
    """
    places, counts = np.asarray(coordinates), np.asarray(hits)
    distances = np.zeros(len(counts)) if u_matrix is None else np.asarray(u_matrix)
    outlined = {int(rank) for rank in chosen}
    rank_of = {int(neuron): rank for rank, neuron in enumerate(np.asarray(neurons))}
    span = np.ptp(places, axis=0) + 1.2
    scale = 1.0 if len(counts) <= 36 else 6 / math.sqrt(len(counts))
    figure = Figure(figsize=(max(3.2, 0.95 * scale * span[0] + 1.3), 0.95 * scale * span[1] + 0.9))
    FigureCanvasAgg(figure)  # without the others' layout: the map fills its frame
    axes = figure.add_subplot()
    norm = Normalize(0, float(distances.max()) or 1.0)
    sides, radius, turn = (
        (6, 1 / math.sqrt(3), 0.0) if topology == "hexagonal" else (4, math.sqrt(0.5), math.pi / 4)
    )
    for i, (x, y) in enumerate(places):
        colour = U_MATRIX(norm(distances[i])) if u_matrix is not None else (1.0, 1.0, 1.0)
        rank = rank_of.get(i)
        marked = rank in outlined
        axes.add_patch(
            RegularPolygon(
                (x, y),
                sides,
                radius=radius * (0.9 if marked else 0.97),
                orientation=turn,
                facecolor=colour,
                edgecolor=CHOSEN if marked else "0.35",
                linewidth=2.8 if marked else 0.6,
                zorder=2 if marked else 1,
            )
        )
        ink = ink_on(colour)
        size = 15 * scale
        axes.text(
            x,
            y + 0.08,
            "–" if rank is None else str(rank),
            color=ink,
            fontsize=size,
            fontweight="bold",
            ha="center",
            va="center",
            zorder=3,
        )
        axes.text(
            x,
            y - 0.27,
            f"n={counts[i]}",
            color=ink,
            fontsize=0.55 * size,
            ha="center",
            va="center",
            zorder=3,
        )
    low, high = places.min(axis=0) - 0.7, places.max(axis=0) + 0.7
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal")
    axes.axis("off")
    if title:
        axes.set_title(title, fontsize=10)
    if u_matrix is None:
        axes.text(0.5, -0.02, VOID, transform=axes.transAxes, ha="center", va="top", fontsize=7)
    else:
        figure.colorbar(
            ScalarMappable(norm, U_MATRIX), ax=axes, shrink=0.8, label="mean distance to neighbours"
        )
    figure.tight_layout()
    return figure
