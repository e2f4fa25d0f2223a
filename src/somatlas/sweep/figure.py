"""The figure of a sweep, from plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from somatlas.report.figures.colours import DIRECTION
from somatlas.report.figures.drawing import WIDTH, new_figure, small_print

_MARKS, _STYLES = "os^DvP*X", ("-", "--", "-.", ":")
_PANELS = (
    ("asr", "rate", 100, "ASR, %"),
    ("kl", "mean", 1, "KL on harmless replies,\nnats a token"),
)


def sweep_figure(
    x: str,
    places: Sequence[str],
    lines: Mapping[str, Sequence[Mapping[str, Any]]],
    single: Mapping[str, Mapping[str, Any]] | None = None,
) -> Figure:
    """ASR and drift along one setting, a line with its 95 % band a combination of the others.

    x : the setting. places : its values, as written; numbers lie to scale, others side by side.
    lines : name -> points with x, `asr` (rate, low, high) and `kl` (mean, low, high), None where
    unknown, and `by_seed`, drawn as dots, where seeds are pooled. single : the same two of SD where
    it is one and the same everywhere.
    """
    numbers = [_number(place) for place in places]
    to_scale = None not in numbers
    at = {
        p: float(n if n is not None and to_scale else i)
        for i, (p, n) in enumerate(zip(places, numbers, strict=True))
    }
    figure = new_figure(WIDTH, 2.8)
    panels = figure.subplots(1, 2)
    colours = colormaps["viridis"](np.linspace(0, 0.85, max(2, len(lines))))
    for axes, (name, middle, scale, label) in zip(panels, _PANELS, strict=True):
        for number, (title, points) in enumerate(lines.items()):
            found = [(at[point[x]], point[name]) for point in points]
            known = sorted(
                [place, *(scale * one[key] for key in (middle, "low", "high"))]
                for place, one in found
                if one[middle] is not None
            )
            _line(axes, np.array(known).reshape(-1, 4), number, title, colours[number], to_scale)
            for place, one in found:
                own = [scale * value for value in one.get("by_seed", ()) if value is not None]
                axes.plot([place] * len(own), own, ".", color=colours[number], ms=3, alpha=0.6)
        if single is not None and single[name][middle] is not None:
            axes.axhline(scale * single[name][middle], color=DIRECTION, lw=1, ls=":", label="SD")
        axes.set(xlabel=x, ylabel=label)
        small_print(axes)
        if not to_scale:
            axes.set_xticks(range(len(places)), places)
        elif all(isinstance(number, int) for number in numbers):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    panels[0].set_ylim(-3, 103)
    panels[1].set_ylim(0, None)
    handles, names = panels[0].get_legend_handles_labels()
    if len(names) > 1:
        figure.legend(
            handles,
            names,
            loc="outside lower center",
            ncols=min(4, len(names)),
            fontsize=7,
            frameon=False,
        )
    return figure


def _line(
    axes: Axes, values: np.ndarray, number: int, title: str, colour: Any, joined: bool
) -> None:
    """One line with its band, or with bars where the places have no order; values (n, 4)."""
    x, middle, low, high = values.T
    style = _STYLES[number % len(_STYLES)] if joined else ""
    mark = _MARKS[number % len(_MARKS)]
    axes.plot(x, middle, marker=mark, ls=style, color=colour, markersize=4, lw=1.2, label=title)
    if joined and len(x) > 1:
        axes.fill_between(x, low, high, color=colour, alpha=0.15, lw=0)
    else:
        axes.vlines(x, low, high, color=colour, lw=1)


def _number(text: str) -> float | None:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return None
