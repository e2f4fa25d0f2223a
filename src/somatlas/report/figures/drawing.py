"""What the figures share: their size, their small print, boxes with equal axes, and their files."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from somatlas.files import atomic_file

WIDTH = 6.3  # inches: the text width of a paper


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of that many inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def laid_out(figure: Figure) -> Figure:
    """The figure with its parts where they stay: each format would arrange them anew."""
    figure.draw_without_rendering()
    figure.set_layout_engine(None)
    return figure


def small_print(axes: Axes) -> None:
    """Labels and ticks in the size of a paper's small print."""
    axes.tick_params(labelsize=7)
    axes.xaxis.label.set_fontsize(8)
    axes.yaxis.label.set_fontsize(8)


def equal_box(axes: Any, points: NDArray[np.floating]) -> None:
    """Frame points (n, 3) in a 3D box with the same scale on every axis, and few ticks."""
    low, high = points.min(axis=0), points.max(axis=0)
    half = 0.55 * np.maximum(high - low, 0.25 * float((high - low).max()) or 1.0)
    middle = (low + high) / 2
    limits = [(m - h, m + h) for m, h in zip(middle, half, strict=True)]
    axes.set(xlim=limits[0], ylim=limits[1], zlim=limits[2])
    axes.set_box_aspect(half, zoom=1.1)
    for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
        axis.set_major_locator(MaxNLocator(4, integer=True))
    axes.tick_params(labelsize=5, pad=-3)


def svg(figure: Figure) -> str:
    """The figure as SVG, the same text for the same figure."""
    buffer = io.BytesIO()
    with rc_context({"svg.hashsalt": "somatlas"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue().decode()


def save_pdf(figure: Figure, path: Path) -> None:
    """Write a PDF, all or nothing, the same bytes for the same figure."""
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="pdf", metadata={"CreationDate": None})


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG at 200 dots an inch, all or nothing."""
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=200)
