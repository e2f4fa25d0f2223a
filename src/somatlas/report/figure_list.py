"""Which figures a report has, from what a run has made so far."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from somatlas.report.atlas_figures import (
    cosine_figure,
    layers_figure,
    plane_figure,
    scaling_figure,
    stability_figure,
    steps_figure,
)
from somatlas.report.figures import map_figure

Rows = Sequence[Sequence[Any]]


@dataclass(frozen=True)
class ReportFigure:
    """One figure: what draws it, what is said of it, and its numbers, header first."""

    name: str
    heading: str
    text: str
    caption: str
    draw: Callable[[], Figure]
    rows: Callable[[], Rows]

    def csv(self) -> str:
        """The numbers as CSV; text that a spreadsheet would take for a formula is quoted."""
        buffer = io.StringIO()
        writer = csv.writer(buffer)
        writer.writerows([[_plain(value) for value in row] for row in self.rows()])
        return buffer.getvalue()


def _plain(value: Any) -> Any:
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return f"'{value}"
    return value


def report_figures(facts: Mapping[str, Any]) -> list[ReportFigure]:
    """The figures that can be drawn. facts : see `somatlas.report.page`."""
    figures = []
    ranks = (facts["evaluation"] or facts["search"] or {}).get("ranks", [])
    if facts["layers"] and len(facts["layers"]["scores"]) > 1:
        figures.append(_layers(facts["layers"]))
    if atlas := facts["atlas"]:
        figures += _atlas(atlas, ranks)
        if facts["map"] and "neurons" in atlas:
            figures.append(_map(facts["map"], atlas["neurons"], ranks))
    return figures


def _layers(layers: Mapping[str, Any]) -> ReportFigure:
    scores = layers["scores"]

    return ReportFigure(
        "layers",
        "Where to cut",
        "For each layer its mean difference was ablated everywhere. The layer of lowest refusal "
        "score among those that change harmless prompts little (KL below 0.1) is cut.",
        f"Refusal score on harmful and KL on harmless val prompts; layer {layers['layer']} is cut.",
        lambda: layers_figure(scores, layers["layer"]),
        lambda: [
            ["layer", "refusal_score", "kl"],
            *([s["layer"], s["refusal_score"], s["kl"]] for s in scores),
        ],
    )


def _map(
    map_file: tuple[Mapping[str, Any], Mapping[str, str]],
    neurons: Sequence[Mapping[str, Any]],
    ranks: Sequence[int],
) -> ReportFigure:
    tensors, metadata = map_file
    order = sorted((n for n in neurons if n["rank"] is not None), key=lambda n: n["rank"])

    def draw() -> Figure:
        return map_figure(
            tensors["coordinates"].numpy(),
            tensors["u_matrix"].numpy(),
            tensors["hits"].numpy(),
            np.array([n["neuron"] for n in order]),
            topology=metadata["topology"],
            chosen=ranks,
        )

    return ReportFigure(
        "map",
        "",
        "",
        "The map as it goes into a paper: rank, hit count, and the U-matrix as colour.",
        draw,
        lambda: [
            ["neuron", "rank", "hits", "refusal_score", "u_matrix", "nearest_prompt"],
            *(
                [
                    n["neuron"],
                    n["rank"],
                    n["hits"],
                    n["refusal_score"],
                    float(tensors["u_matrix"][n["neuron"]]),
                    (n["typical"] or [""])[0],
                ]
                for n in neurons
            ),
        ],
    )


def _atlas(atlas: Mapping[str, Any], ranks: Sequence[int]) -> list[ReportFigure]:
    steps, plane = atlas["steps"], atlas["plane"]
    figures = [
        ReportFigure(
            "steps",
            "",
            _relations_text(atlas["relations"]),
            "ASR, compactness of the harmful cluster and its distance to the harmless one, over "
            "the number of directions ablated: the chosen ones first.",
            lambda: steps_figure(steps),
            lambda: [
                ["k", "ranks", "asr", "refusal", "babble", "compactness", "distance", "stress"],
                *(
                    [
                        s["k"],
                        " ".join(map(str, s["ranks"])),
                        *(s[name] for name in ("asr", "refusal", "babble")),
                        *(s[name] for name in ("compactness", "distance", "stress")),
                    ]
                    for s in steps
                ),
            ],
        ),
        ReportFigure(
            "scaling",
            "",
            "",
            "The same clusters in three dimensions, for print.",
            lambda: scaling_figure(steps),
            lambda: [
                ["k", "side", "x", "y", "z"],
                *(
                    [s["k"], side, *place]
                    for s in steps
                    for side in ("harmful", "harmless")
                    for place in s[side]
                ),
            ],
        ),
        ReportFigure(
            "plane",
            "The directions",
            "",
            "Train representations on two principal components; each direction as an arrow from "
            "the harmless mean. An arrow is short where the direction leads out of the plane.",
            lambda: plane_figure(plane, ranks),
            lambda: [
                ["what", "x", "y"],
                *(
                    [what, *place]
                    for what in ("harmful", "harmless", "directions")
                    for place in plane[what]
                ),
            ],
        ),
        ReportFigure(
            "cosines",
            "",
            "",
            "Cosines between the directions.",
            lambda: cosine_figure(atlas["cosines"], ranks),
            lambda: [
                ["rank", *range(len(atlas["cosines"]))],
                *([rank, *row] for rank, row in enumerate(atlas["cosines"])),
            ],
        ),
    ]
    if found := atlas.get("stability"):
        figures.append(
            ReportFigure(
                "stability",
                "Would other prompts have given the same directions?",
                _stability_text(found),
                "Mean cosine between matched directions of two repeats, and the range of 90 % of "
                "the pairs.",
                lambda: stability_figure(found),
                lambda: [
                    ["method", "over", "measure", "mean", "low", "high"],
                    *(
                        [method, over, measure, *value.values()]
                        for method, kinds in found.items()
                        for over in ("samples", "seeds")
                        for measure, value in kinds[over].items()
                        if value is not None
                    ),
                ],
            )
        )
    return figures


def _relations_text(relations: Mapping[str, Any]) -> str:
    parts = []
    for name, what in (("compactness", "compactness"), ("distance", "distance")):
        if found := relations[name]:
            parts.append(f"{what} r = {found['r']:.2f} [{found['low']:.2f}, {found['high']:.2f}]")
    if not parts:
        return "Too few directions to correlate geometry with ASR."
    return (
        f"Correlation with ASR over k: {'; '.join(parts)} (95 % intervals). Steps of one run are "
        "not independent, so these intervals are, if anything, too narrow."
    )


def _stability_text(found: Mapping[str, Any]) -> str:
    som, floor = (found[m]["samples"] for m in ("som", "covariance"))
    angle, rand = som["largest_angle"]["mean"], som["rand"]["mean"]
    cosine, chance = som["matched_cosine"]["mean"], floor["matched_cosine"]["mean"]
    text = (
        f"Between 80 % samples the spans of the first {found['som']['k']} directions differ by "
        f"{angle:.0f} degrees at most angle, matched directions have cosine {cosine:.2f} "
        f"(random directions with the data's covariance: {chance:.2f}), and the partitions of the "
        f"prompts agree with an adjusted Rand index of {rand:.2f}. "
    )
    if cosine - chance < 0.1:
        return text + "Single directions are no more alike than chance: read the span, not them."
    if angle > 45 or rand < 0.5:
        return text + (
            "What is shared is real, but the ranks are not the same from sample to sample: say "
            "what a set of directions does, not what one of them means."
        )
    return text + "Directions and partition would come out much alike from other such prompts."
