"""Which figures a run has, from what it has made so far."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from somatlas.atlases.record import Atlas
from somatlas.directions.methods import floors
from somatlas.measures.drift import REPLY_TOKENS
from somatlas.measures.layer_choice import LayerChoice
from somatlas.report.figures.atlas_figures import (
    front_figure,
    layers_figure,
    stability_figure,
    steps_figure,
)
from somatlas.report.figures.control_figures import knobs_figure
from somatlas.report.figures.direction_figures import cosine_figure, plane_figure
from somatlas.report.figures.map_figures import VOID, map_figure
from somatlas.report.figures.space_figures import grid_figure, scaling_figure
from somatlas.report.format import rate_text
from somatlas.report.read import Facts, read_facts
from somatlas.runs.map_file import MapFile
from somatlas.runs.places import run_place
from somatlas.searches.result import SearchResult

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
    """The figures of a run's folder or URL by name, those that can be drawn from what it has so
    far.

    Raises InputError where there is no run.
    """
    facts = read_facts(run_place(folder, whole=False))
    return {figure.name: figure for figure in report_figures(facts)}


def report_figures(facts: Facts) -> list[ReportFigure]:
    """The figures that can be drawn."""
    figures = []
    if facts.layers and len(facts.layers.scores) > 1:
        figures.append(_layers(facts.layers))
    if facts.map:
        figures.append(_map(facts.map, facts.atlas.neurons if facts.atlas else None, facts.chosen))
    if facts.search and facts.search.front:
        figures.append(_front(facts.search))
    if facts.atlas:
        steps = facts.atlas.steps
        figures += [_steps(steps), _scaling(steps), _plane(facts, facts.atlas)]
        figures += [_cosines(facts, facts.atlas)]
        if facts.map and facts.atlas.space is not None:
            figures += [_grid(facts.map, facts.atlas.space, facts.chosen)]
            figures += [_cosines_on_map(facts, facts.atlas, facts.map)]
        if stability := facts.atlas.stability:
            figures.append(_stability(stability))
        knobs = facts.atlas.knobs
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


def _layers(layers: LayerChoice) -> ReportFigure:
    scores = [asdict(score) for score in layers.scores]
    names = ("layer", "refusal_score", "kl")
    return ReportFigure(
        "layers",
        f"Refusal score on harmful and KL on harmless val prompts; layer {layers.layer} is cut.",
        lambda: layers_figure(
            _column(scores, "layer"),
            _column(scores, "refusal_score"),
            _column(scores, "kl"),
            layers.layer,
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
        "The map as it goes into a paper: rank and hit count"
        + (", and the U-matrix as colour." if found.ordered else f"; {VOID}, so none is shaded."),
        lambda: map_figure(
            found.coordinates,
            found.u_matrix if found.ordered else None,
            found.hits,
            found.neurons,
            topology=found.topology,
            chosen=chosen,
        ),
        rows,
    )


def _front(search: SearchResult) -> ReportFigure:
    trials, front, names = search.trials, search.front or [], ("kl", "asr")
    on_front = _column(front, "ranks")

    def points(rows: Sequence[Mapping[str, Any]]) -> list[list[float]]:
        return [[row[name] for name in names] for row in rows if row["kl"] is not None]

    return ReportFigure(
        "front",
        f"Every trial by drift (KL over the first {REPLY_TOKENS} tokens of harmless replies) and "
        "attack success on val; those that no other beats in both are "
        "joined, and the set that was chosen is marked.",
        lambda: front_figure(
            points(trials),
            points(front),
            next(iter(points([search.val])), None),
            search.max_kl["limit"] if search.max_kl else None,
        ),
        lambda: [
            ["ranks", *names, "pruned", "front", "chosen"],
            *(
                [
                    _ranks(trial["ranks"]),
                    *(trial[name] for name in names),
                    trial["pruned"],
                    trial["ranks"] in on_front,
                    trial["ranks"] == search.ranks,
                ]
                for trial in trials
            ),
        ],
    )


def _steps(steps: Sequence[Mapping[str, Any]]) -> ReportFigure:
    drawn = ("asr", "kl", "compactness", "harmless_compactness", "ratio", "distance")
    shares = ("asr", "refusal", "babble", "harmless_answered")
    names = ("n", "n_harmless", *shares, *drawn[1:], "stress")
    clouds = [len(steps[0][side]) for side in ("harmful", "harmless")]
    return ReportFigure(
        "steps",
        f"Over the number of directions ablated, the chosen ones first: ASR on {steps[0]['n']} "
        f"test prompts; drift (KL over the first {REPLY_TOKENS} tokens of harmless replies); and, "
        f"of {clouds[0]} harmful and {clouds[1]} harmless test prompts' representations, the "
        "distance of the two centroids, the mean distance to each cluster's own, and the ratio of "
        "these two.",
        lambda: steps_figure(_column(steps, "k"), **{name: _column(steps, name) for name in drawn}),
        lambda: [
            ["k", "ranks", *names],
            *([s["k"], _ranks(s["ranks"]), *(s[name] for name in names)] for s in steps),
        ],
    )


def _scaling(steps: Sequence[Mapping[str, Any]]) -> ReportFigure:
    numbers = ("stress", "compactness", "harmless_compactness", "distance")
    return ReportFigure(
        "scaling",
        "The same clusters in three dimensions (classical scaling of all steps together, one frame "
        "and one scale). HL σ, HF σ: mean distance of harmless and harmful representations to "
        "their centroid; Δμ: distance of the centroids; all in the full space.",
        lambda: scaling_figure(
            *(_column(steps, name) for name in ("k", "harmful", "harmless")),
            **{name: _column(steps, name) for name in numbers},
        ),
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


def _plane(facts: Facts, atlas: Atlas) -> ReportFigure:
    plane, corners = atlas.plane, {}
    if facts.evaluation:
        shown, test = {"sd": "sd", "md": facts.condition}, facts.evaluation.test
        rates = {panel: test[c]["asr"] for panel, c in shown.items() if c in test}
        corners = {panel: f"test ASR {rate_text(rate)} %" for panel, rate in rates.items()}
    length = "" if plane["to_scale"] else " These directions are axes, drawn as long as SD."
    return ReportFigure(
        "plane",
        "Train representations on two principal components, with arrows from the harmless mean to "
        "where SD and every direction lead: the harmful mean, and each one's neuron or centre. "
        f"Heavy ones are ablated together.{length}",
        lambda: plane_figure(plane, facts.chosen, corners),
        lambda: [
            ["what", "x", "y"],
            *([what, *place] for what in ("harmful", "harmless", "ends") for place in plane[what]),
            ["single", *plane["single"]],
        ],
    )


def _grid(found: MapFile, space: Mapping[str, Any], chosen: Sequence[int]) -> ReportFigure:
    lines = "the lines of the grid" if space["edges"] else f"no lines of the grid, as {VOID}"
    return ReportFigure(
        "grid",
        "The neurons by rank among the train prompts, on the first three principal components of "
        f"the harmful ones, with {lines}.",
        lambda: grid_figure(
            *(space[name] for name in ("harmful", "harmless", "neurons", "edges")),
            ranks=found.ranks,
            chosen=chosen,
            variance=space["variance"],
        ),
        lambda: [
            ["what", "rank", "x", "y", "z", "joined_to_neurons"],
            *(
                [side, None, *place, None]
                for side in ("harmful", "harmless")
                for place in space[side]
            ),
            *(
                ["neuron", rank, *place, _ranks(_joined(space["edges"], neuron))]
                for neuron, (rank, place) in enumerate(
                    zip(found.ranks, space["neurons"], strict=True)
                )
            ),
        ],
    )


def _joined(edges: Sequence[Sequence[int]], neuron: int) -> list[int]:
    return [two if one == neuron else one for one, two in edges if neuron in (one, two)]


def _cosines(facts: Facts, atlas: Atlas) -> ReportFigure:
    order = range(len(atlas.cosines))
    return _cosine_matrix(
        "cosines", "Cosines between the directions, and with SD.", facts, atlas, order
    )


def _cosines_on_map(facts: Facts, atlas: Atlas, found: MapFile) -> ReportFigure:
    order = [rank for rank in found.ranks if rank is not None]
    caption = "The same in the order of the neurons on the grid, line by line."
    return _cosine_matrix(
        "cosines-map", caption if found.ordered else f"{caption} Here {VOID}.", facts, atlas, order
    )


def _cosine_matrix(
    name: str, caption: str, facts: Facts, atlas: Atlas, order: Sequence[int]
) -> ReportFigure:
    """The matrix with its rows in some order of the ranks, SD's last."""
    single = atlas.cosines_with_single
    rows = [[*(atlas.cosines[i][j] for j in order), single[i]] for i in order]
    rows.append([*(single[j] for j in order), 1.0])
    names = [*map(str, order), "SD"]
    chosen = [place for place, rank in enumerate(order) if rank in facts.chosen]
    return ReportFigure(
        name,
        caption,
        lambda: cosine_figure(rows, chosen, names),
        lambda: [["rank", *names], *([n, *row] for n, row in zip(names, rows, strict=True))],
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
        lambda: stability_figure(found, floors(found)),
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
