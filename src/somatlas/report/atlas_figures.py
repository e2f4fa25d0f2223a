"""The figures of the atlas, each a function from plain numbers to a matplotlib figure.

Colours tell harmful from harmless by lightness as well as hue: they stay apart in grey.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

HARMFUL, HARMLESS, DIRECTION = "#b2182b", "#67a9cf", "#4d4d4d"
WIDTH = 6.3  # inches: the text width of a paper


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def cosine_figure(cosines: Sequence[Sequence[float]], chosen: Sequence[int] = ()) -> Figure:
    """Cosines between directions, in rank order; chosen ranks are marked on the axes."""
    matrix = np.asarray(cosines)
    side = min(WIDTH, 2.2 + 0.26 * len(matrix))
    figure = _figure(side + 0.7, side)
    axes = figure.add_subplot()
    image = axes.imshow(matrix, cmap="RdBu_r", vmin=-1, vmax=1)
    names = [f"{i}*" if i in chosen else str(i) for i in range(len(matrix))]
    axes.set_xticks(range(len(matrix)), names, fontsize=7)
    axes.set_yticks(range(len(matrix)), names, fontsize=7)
    axes.set(xlabel="rank (* chosen)", ylabel="rank")
    if len(matrix) <= 16:
        for i, row in enumerate(matrix):
            for j, value in enumerate(row):
                ink = "white" if abs(value) > 0.6 else "black"
                text = f"{value:.1f}".replace("-0.0", "0.0")
                axes.text(j, i, text, ha="center", va="center", fontsize=5.5, color=ink)
    figure.colorbar(image, ax=axes, shrink=0.8, label="cosine")
    return figure


def plane_figure(plane: Mapping[str, Any], chosen: Sequence[int] = ()) -> Figure:
    """Representations on two principal components, their centroids, and every direction as an
    arrow from the harmless centroid; longer arrows lie more in the plane."""
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
        heavy = rank in chosen
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


def steps_figure(steps: Sequence[Mapping[str, Any]]) -> Figure:
    """ASR, compactness and distance while directions are ablated one after another."""
    figure = _figure(WIDTH, 2.3)
    panels = (
        ("asr", "ASR on val, %", 100.0),
        ("compactness", "harmful cluster: mean\ndistance to its centroid", 1.0),
        ("distance", "distance of the\ntwo centroids", 1.0),
    )
    k = [step["k"] for step in steps]
    for axes, (name, label, factor) in zip(figure.subplots(1, 3), panels, strict=True):
        axes.plot(k, [factor * step[name] for step in steps], "o-", color=DIRECTION, markersize=4)
        axes.set(xlabel="directions ablated", ylabel=label, ylim=(0, None), xticks=k)
        axes.tick_params(labelsize=7)
        axes.xaxis.label.set_size(8)
        axes.yaxis.label.set_size(8)
    return figure


def scaling_figure(steps: Sequence[Mapping[str, Any]]) -> Figure:
    """The clusters in 3D (classical scaling) before, half way through and after ablation."""
    shown = [steps[i] for i in sorted({0, len(steps) // 2, len(steps) - 1})]
    figure = _figure(WIDTH, 2.4)
    for place, step in enumerate(shown, start=1):
        axes = figure.add_subplot(1, len(shown), place, projection="3d")
        for name, colour, mark in (("harmless", HARMLESS, "o"), ("harmful", HARMFUL, "^")):
            places = np.asarray(step[name])
            axes.scatter(*places.T, s=8, c=colour, marker=mark, depthshade=False, linewidths=0)
        axes.set_title(f"k = {step['k']}  (stress {step['stress']:.2f})", fontsize=8)
        axes.tick_params(labelsize=0, length=0)
        axes.set(xticklabels=[], yticklabels=[], zticklabels=[])
    return figure


def stability_figure(stability: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Matched cosines of the first k directions over samples and seeds, method by method."""
    figure = _figure(WIDTH, 0.9 + 0.32 * len(stability))
    names = list(stability)
    for axes, (which, title) in zip(
        figure.subplots(1, 2, sharey=True),
        (("samples", "80 % samples"), ("seeds", "seeds")),
        strict=True,
    ):
        for row, name in enumerate(names):
            found = stability[name][which]["matched_cosine"]
            axes.plot([found["low"], found["high"]], [row, row], color=HARMLESS, lw=4, alpha=0.6)
            axes.plot(found["mean"], row, "o", color=HARMFUL, markersize=5)
        axes.set(
            xlim=(-0.05, 1.05), ylim=(len(names) - 0.5, -0.5), xlabel="matched cosine", title=title
        )
        axes.set_yticks(range(len(names)), names)
        axes.tick_params(labelsize=8)
        axes.title.set_size(9)
    return figure


def layers_figure(scores: Sequence[Mapping[str, Any]], chosen: int) -> Figure:
    """Refusal score and KL of each layer's mean difference, the chosen layer marked."""
    figure = _figure(WIDTH, 2.4)
    layers = [score["layer"] for score in scores]
    for axes, (name, label) in zip(
        figure.subplots(1, 2),
        (("refusal_score", "refusal score (log-odds)"), ("kl", "KL on harmless (nats)")),
        strict=True,
    ):
        axes.plot(layers, [score[name] for score in scores], "o-", color=DIRECTION, markersize=3)
        axes.axvline(chosen, color=HARMFUL, lw=1, ls="--")
        axes.set(xlabel="layer", ylabel=label)
        if name == "kl":
            axes.axhline(0.1, color=HARMLESS, lw=1)
        axes.tick_params(labelsize=7)
    return figure
