"""Which figures a run has, from what it has made so far."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from somatlas.comparators import FLOORS
from somatlas.report.atlas_figures import (
    cosine_figure,
    front_figure,
    layers_figure,
    plane_figure,
    scaling_figure,
    stability_figure,
    steps_figure,
)
from somatlas.report.control_figures import knobs_figure
from somatlas.report.facts import Facts, MapFile, read_facts
from somatlas.report.figures import map_figure

Rows = Sequence[Sequence[Any]]


@dataclass(frozen=True)
class ReportFigure:
    """One figure: what is said below it, what draws it, and its numbers, header first."""

    name: str
    caption: str
    draw: Callable[[], Figure]
    rows: Callable[[], Rows]

    def csv(self) -> str:
        """The numbers as CSV; text that a spreadsheet would take for a formula is quoted."""
        buffer = io.StringIO()
        writer = csv.writer(buffer)
        writer.writerows([[_plain(value) for value in row] for row in self.rows()])
        return buffer.getvalue()


def run_figures(folder: str | Path) -> dict[str, ReportFigure]:
    """The figures of a run's folder by name, those that can be drawn from what it has so far.

    Raises InputError where the folder is no run.
    """
    return {figure.name: figure for figure in report_figures(read_facts(Path(folder)))}


def report_figures(facts: Facts) -> list[ReportFigure]:
    """The figures that can be drawn."""
    figures = []
    if facts.layers and len(facts.layers["scores"]) > 1:
        figures.append(_layers(facts.layers))
    if facts.map:
        figures.append(_map(facts.map, (facts.atlas or {}).get("neurons"), facts.chosen))
    if facts.search and facts.search["front"]:
        figures.append(_front(facts.search))
    if facts.atlas:
        steps = facts.atlas["steps"]
        figures += [_steps(steps), _scaling(steps), _plane(facts.atlas["plane"], facts.chosen)]
        figures.append(_cosines(facts.atlas["cosines"], facts.chosen))
        if stability := facts.atlas["stability"]:
            figures.append(_stability(stability))
        knobs = facts.atlas.get("knobs")
        if knobs and "borderline" in knobs["differ"]:
            figures.append(_knobs(knobs, facts.chosen))
    return figures


def _plain(value: Any) -> Any:
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return f"'{value}"
    return value


def _ranks(ranks: Sequence[int]) -> str:
    return " ".join(map(str, ranks))


def _column(rows: Sequence[Mapping[str, Any]], name: str) -> list[Any]:
    return [row[name] for row in rows]


def _layers(layers: Mapping[str, Any]) -> ReportFigure:
    scores, names = layers["scores"], ("layer", "refusal_score", "kl")
    return ReportFigure(
        "layers",
        f"Refusal score on harmful and KL on harmless val prompts; layer {layers['layer']} is cut.",
        lambda: layers_figure(
            _column(scores, "layer"),
            _column(scores, "refusal_score"),
            _column(scores, "kl"),
            layers["layer"],
        ),
        lambda: [names, *([score[name] for name in names] for score in scores)],
    )


def _map(
    found: MapFile, neurons: Sequence[Mapping[str, Any]] | None, chosen: Sequence[int]
) -> ReportFigure:
    def rows() -> Rows:
        header = ["neuron", "rank", "hits", "u_matrix"]
        columns = zip(found.ranks, found.hits.tolist(), found.u_matrix.tolist(), strict=True)
        numbers = [[neuron, *column] for neuron, column in enumerate(columns)]
        if neurons is None:
            return [header, *numbers]
        told = [[n["refusal_score"], (n["typical"] or [""])[0]] for n in neurons]
        return [
            [*header, "refusal_score", "nearest_prompt"],
            *(one + other for one, other in zip(numbers, told, strict=True)),
        ]

    return ReportFigure(
        "map",
        "The map as it goes into a paper: rank, hit count, and the U-matrix as colour.",
        lambda: map_figure(
            found.coordinates,
            found.u_matrix,
            found.hits,
            found.neurons,
            topology=found.topology,
            chosen=chosen,
        ),
        rows,
    )


def _front(search: Mapping[str, Any]) -> ReportFigure:
    trials, front, names = search["trials"], search["front"], ("kl", "asr")
    on_front = _column(front, "ranks")

    def points(rows: Sequence[Mapping[str, Any]]) -> list[list[float]]:
        return [[row[name] for name in names] for row in rows if row["kl"] is not None]

    return ReportFigure(
        "front",
        "Every trial by drift and attack success on val; those that no other beats in both are "
        "joined, and the set that was chosen is marked.",
        lambda: front_figure(
            points(trials),
            points(front),
            next(iter(points([search["val"]])), None),
            search["max_kl"] and search["max_kl"]["limit"],
        ),
        lambda: [
            ["ranks", *names, "pruned", "front", "chosen"],
            *(
                [
                    _ranks(trial["ranks"]),
                    *(trial[name] for name in names),
                    trial["pruned"],
                    trial["ranks"] in on_front,
                    trial["ranks"] == search["ranks"],
                ]
                for trial in trials
            ),
        ],
    )


def _steps(steps: Sequence[Mapping[str, Any]]) -> ReportFigure:
    drawn = ("asr", "kl", "compactness", "distance")
    names = ("n", "asr", "refusal", "babble", "harmless_answered", *drawn[1:], "stress")
    return ReportFigure(
        "steps",
        "ASR on test prompts, drift on harmless replies, compactness of the harmful cluster and "
        "its distance to the harmless one, over the number of directions ablated: the chosen ones "
        "first.",
        lambda: steps_figure(_column(steps, "k"), **{name: _column(steps, name) for name in drawn}),
        lambda: [
            ["k", "ranks", *names],
            *([s["k"], _ranks(s["ranks"]), *(s[name] for name in names)] for s in steps),
        ],
    )


def _scaling(steps: Sequence[Mapping[str, Any]]) -> ReportFigure:
    names = ("k", "harmful", "harmless", "stress")
    return ReportFigure(
        "scaling",
        "The same clusters in three dimensions, for print.",
        lambda: scaling_figure(*(_column(steps, name) for name in names)),
        lambda: [
            ["k", "side", "x", "y", "z"],
            *(
                [s["k"], side, *place]
                for s in steps
                for side in ("harmful", "harmless")
                for place in s[side]
            ),
        ],
    )


def _plane(plane: Mapping[str, Any], chosen: Sequence[int]) -> ReportFigure:
    return ReportFigure(
        "plane",
        "Train representations on two principal components; each direction as an arrow from "
        "the harmless mean. An arrow is short where the direction leads out of the plane.",
        lambda: plane_figure(plane, chosen),
        lambda: [
            ["what", "x", "y"],
            *(
                [what, *place]
                for what in ("harmful", "harmless", "directions")
                for place in plane[what]
            ),
        ],
    )


def _cosines(cosines: Sequence[Sequence[float]], chosen: Sequence[int]) -> ReportFigure:
    return ReportFigure(
        "cosines",
        "Cosines between the directions.",
        lambda: cosine_figure(cosines, chosen),
        lambda: [
            ["rank", *range(len(cosines))],
            *([rank, *row] for rank, row in enumerate(cosines)),
        ],
    )


def _stability(found: Mapping[str, Mapping[str, Any]]) -> ReportFigure:
    def rows() -> Rows:
        spreads = [
            (method, over, f"{measure}{suffix}", value)
            for method, kinds in found.items()
            for suffix, record in (("", kinds), ("_without_sd", kinds.get("without_sd") or {}))
            for over in ("samples", "seeds")
            for measure, value in record.get(over, {}).items()
            if value is not None
        ]
        names = ("mean", "low", "high")
        return [
            ["method", "over", "measure", *names],
            *([*what, *(value[name] for name in names)] for *what, value in spreads),
        ]

    return ReportFigure(
        "stability",
        "Means over pairs of repeats, and the range of 90 % of them: cosines of the directions, "
        "as they are and with the mean difference projected out, angles of their spans, and how "
        "alike they part the prompts. Floors learn nothing. Methods without a draw do not change "
        "with the seed.",
        lambda: stability_figure(found, FLOORS),
        rows,
    )


def _knobs(knobs: Mapping[str, Any], chosen: Sequence[int]) -> ReportFigure:
    names = ("refusal", "borderline_refusal")

    def place(row: Mapping[str, Any]) -> list[float]:
        return [row[name]["rate"] for name in names]

    def rows() -> Rows:
        bounds = ("rate", "low", "high", "n")
        header = ["what", *(f"{n}_{b}" for n in names for b in bounds), "kl"]
        every = [("base", knobs["base"]), ("sd", knobs["sd"])]
        every += [(str(cell["rank"]), cell) for cell in knobs["cells"]]
        numbers = ([row[n][b] for n in names for b in bounds] for _, row in every)
        return [
            header,
            *([what, *own, row["kl"]] for (what, row), own in zip(every, numbers, strict=True)),
        ]

    return ReportFigure(
        "knobs",
        "Refusal of harmful and of borderline test prompts, in the first "
        f"{knobs['tokens']} tokens of replies, while each direction alone is ablated, by rank: on "
        "one rising curve the directions are settings of one knob.",
        lambda: knobs_figure(
            [place(cell) for cell in knobs["cells"]],
            place(knobs["sd"]),
            place(knobs["base"]),
            chosen,
        ),
        rows,
    )
