"""report.html: one file that works offline, from what a run has so far.

What a stage has not made yet is named on the page, with the command that makes it. Everything that
came from a model or a prompt file is escaped by the template engine.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from matplotlib import rc_context

from somatlas.evaluation import CONDITIONS, read_completions, read_jsonl
from somatlas.files import atomic_file, read_json, read_tensors, write_text
from somatlas.report.cost import cost_rows
from somatlas.report.evidence import evidence_lines
from somatlas.report.figure_list import ReportFigure, report_figures
from somatlas.report.summary import OTHER_ROWS, ROWS
from somatlas.report.words import rate_text, summary_lines
from somatlas.run import Run

_SHADE = 0.75  # opacity of the darkest cell
_SIDES = {"hexagonal": 6, "rectangular": 4}


def write_report(run: Run, *, show_completions: bool = False) -> Path:
    """Write report.html and figures/ of a run; returns the page's path.

    figures/ has every figure as SVG and PDF and its data as CSV.
    """
    facts = _read(run)
    drawn = report_figures(facts)
    embedded = [_saved(figure, run.path("figures")) for figure in drawn]
    content = _content(run, facts, embedded, show_completions)
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    source = (files("somatlas") / "data" / "report.html.j2").read_text(encoding="utf-8")
    path = run.path("report.html")
    write_text(path, environment.from_string(source).render(content))
    return path


def _read(run: Run) -> dict[str, Any]:
    """The run's JSON files and the map, None where a stage has not made them."""
    facts: dict[str, Any] = {}
    for name in ("evaluation", "search", "layers", "cost", "atlas"):
        path = run.path(f"{name}.json")
        facts[name] = read_json(path) if path.exists() else None
    path = run.path("map.safetensors")
    facts["map"] = read_tensors(path) if path.exists() else None
    return facts


def _content(
    run: Run, facts: Mapping[str, Any], figures: Sequence[Mapping[str, str]], show: bool
) -> dict[str, Any]:
    evaluation, search, atlas = facts["evaluation"], facts["search"], facts["atlas"]
    ranks = evaluation["ranks"] if evaluation else (search or {}).get("ranks", [])
    command = f"somatlas run {run.config.model} --name {run.config.name}"
    missing = [
        {"what": what, "command": command}
        for name, what in (
            ("map", "the map" if run.config.method == "som" else None),
            ("evaluation", "the replies and their verdicts"),
            ("atlas", "neurons, geometry and stability"),
        )
        if facts[name] is None and what is not None
    ]
    cells = _cells(facts, ranks) if facts["map"] and atlas and "neurons" in atlas else []
    clouds = [{k: s[k] for k in ("harmful", "harmless")} for s in atlas["steps"]] if atlas else []
    return {
        "title": f"How {run.folder.parent.name} encodes refusal"
        if run.config.behaviour is None
        else f"How {run.folder.parent.name} encodes a behaviour",
        "subtitle": f"somatlas run {run.folder.parent.name}/{run.config.name}, seed "
        f"{run.config.seed}, method {run.config.method}",
        "summary": summary_lines(facts),
        "missing": missing,
        "rates": _rates(evaluation, run.config.behaviour is not None),
        "evidence": evidence_lines(evaluation) if evaluation else [],
        "judges": ", ".join(evaluation["judge"]) if evaluation else "",
        "judge_rates": _judge_rates(evaluation),
        "costs": cost_rows(facts["cost"]) if facts["cost"] else [],
        "ranks": ", ".join(map(str, ranks)),
        "notes": _leak_note(evaluation),
        "cells": cells,
        "view": _view(facts["map"]) if cells else "",
        "map_note": _map_note(atlas) if cells else "",
        "clouds": clouds,
        "clouds_last": len(clouds) - 1,
        "clouds_n": sum(map(len, clouds[0].values())) if clouds else 0,
        "figures": figures,
        "trials": _contenders(search),
        "search_text": _search_text(search),
        "borderline": _borderline(atlas),
        "completions": _completions(run) if show else [],
        "config": run.path("config.toml").read_text(encoding="utf-8")
        if run.path("config.toml").exists()
        else "",
    }


def _rates(evaluation: Mapping[str, Any] | None, other: bool) -> list[dict[str, Any]]:
    if evaluation is None:
        return []
    test = evaluation["test"]
    rows = [
        {
            "title": title,
            "cells": [rate_text(test[c][name]) for c in CONDITIONS],
            "n": test["base"][name]["n"],
        }
        for name, title in (OTHER_ROWS if other else ROWS).items()
    ]
    kl = [f"{test[c]['kl']:.3f}" for c in CONDITIONS]
    rows.append(
        {"title": "KL on harmless, nats a token", "cells": kl, "n": evaluation["kl_replies"]}
    )
    return rows


def _judge_rates(evaluation: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Attack success by each judge, where there are several."""
    if evaluation is None or len(evaluation["by_judge"]) < 2:
        return []
    return [
        {"title": name, "cells": [rate_text(sides[c]["asr"]) for c in CONDITIONS]}
        for name, sides in evaluation["by_judge"].items()
    ]


def _leak_note(evaluation: Mapping[str, Any] | None) -> str:
    if evaluation is None or not any(evaluation["leak"].values()):
        return ""
    return (
        f"A norm follows the writes: {evaluation['leak']['md']:.0%} of what MD removes before it "
        "comes back."
    )


def _cells(facts: Mapping[str, Any], chosen: Sequence[int]) -> list[dict[str, Any]]:
    tensors, metadata = facts["map"]
    places, shades = tensors["coordinates"].numpy(), tensors["u_matrix"].numpy()
    darkest = float(shades.max()) or 1.0
    sides = _SIDES[metadata["topology"]]
    radius = 1 / math.sqrt(3) if sides == 6 else math.sqrt(0.5)
    turn = math.pi / 2 if sides == 6 else math.pi / 4
    cells = []
    for neuron in facts["atlas"]["neurons"]:
        i = neuron["neuron"]
        x, y = float(places[i][0]), -float(places[i][1])
        corners = [
            (
                x + 0.96 * radius * math.cos(turn + 2 * math.pi * c / sides),
                y + 0.96 * radius * math.sin(turn + 2 * math.pi * c / sides),
            )
            for c in range(sides)
        ]
        score = neuron["refusal_score"]
        cells.append(
            {
                "neuron": i,
                "rank": "–" if neuron["rank"] is None else neuron["rank"],
                "hits": neuron["hits"],
                "chosen": neuron["rank"] in chosen,
                "points": " ".join(f"{a:.3f},{b:.3f}" for a, b in corners),
                "shade": f"{0.06 + _SHADE * float(shades[i]) / darkest:.2f}",
                "x": f"{x:.3f}",
                "y": f"{y + 0.08:.3f}",
                "below": f"{y + 0.33:.3f}",
                "score": None if score is None else f"{score:.1f}",
                "categories": ", ".join(
                    f"{name} {c['count']} ({c['lift']:.1f}x)"
                    for name, c in list(neuron["categories"].items())[:5]
                ),
                "typical": neuron["typical"],
                "borderline": _border_text(neuron),
                "tip": "; ".join(neuron["typical"][:2]),
            }
        )
    return cells


def _border_text(neuron: Mapping[str, Any]) -> str:
    if not neuron["borderline"]:
        return ""
    return f"{neuron['borderline']} borderline, {neuron['borderline_refused']} of them refused"


def _view(map_file: tuple[Mapping[str, Any], Mapping[str, str]]) -> str:
    places = map_file[0]["coordinates"].numpy()
    low, high = places.min(axis=0) - 0.75, places.max(axis=0) + 0.75
    return f"{low[0]:.3f} {-high[1]:.3f} {high[0] - low[0]:.3f} {high[1] - low[1]:.3f}"


def _map_note(atlas: Mapping[str, Any]) -> str:
    errors, information = atlas["errors"], atlas["information"]
    text = (
        f"Quantization error {errors['quantization']:.2f}; topographic error "
        f"{errors['topographic']:.0%}."
    )
    if information is not None:
        text += (
            f" The neuron tells {information['bits']:.2f} bits of the prompt's category "
            f"({information['chance']:.2f} by chance, p = {information['p']:.3f})."
        )
    return text


def _contenders(search: Mapping[str, Any] | None) -> list[dict[str, str]]:
    if search is None or not search["selection"]:
        return []
    return [
        {
            "ranks": ", ".join(map(str, row["ranks"])),
            "val": f"{row['val_asr']:.0%}",
            "unseen": f"{row['selection_asr']:.0%}",
        }
        for row in search["selection"]["contenders"]
    ]


def _search_text(search: Mapping[str, Any] | None) -> str:
    if search is None or not search["selection"]:
        return ""
    pruned = sum(trial["pruned"] for trial in search["trials"])
    return (
        f"{len(search['trials'])} sets of directions were tried on {search['val']['n']} val "
        f"prompts, {pruned} of them ended early because they could not come among the best. The "
        f"best were scored again on {search['selection']['n']} prompts that the search never saw, "
        "and the winner was chosen there: the val score of a winner promises too much (here by "
        f"{100 * search['selection']['optimism']:.0f} points)."
    )


def _borderline(atlas: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    if atlas is None or "borderline" not in atlas:
        return []
    rank = {neuron["neuron"]: neuron["rank"] for neuron in atlas["neurons"]}
    return [
        {"prompt": row["prompt"], "rank": rank[row["neuron"]]}
        for row in atlas["borderline"]
        if row["refused"]
    ]


def _completions(run: Run) -> list[dict[str, Any]]:
    if not run.path("verdicts.jsonl").exists():
        return []
    verdicts = read_jsonl(run.path("verdicts.jsonl"))
    sides = {c: read_completions(run.path(f"completions/{c}.jsonl")) for c in CONDITIONS}
    by_side = {c: [v for v in verdicts if v["condition"] == c] for c in CONDITIONS}
    return [
        {
            "prompt": sides["base"][i].prompt,
            "kind": sides["base"][i].kind,
            "verdicts": " / ".join(by_side[c][i]["verdict"] for c in CONDITIONS),
            "replies": [{"condition": c, "text": sides[c][i].reply} for c in CONDITIONS],
        }
        for i in range(len(sides["base"]))
    ]


def _saved(figure: ReportFigure, folder: Path) -> dict[str, str]:
    """Write a figure's files, and what the page says and shows of it."""
    drawn, buffer = figure.draw(), io.BytesIO()
    with rc_context({"svg.hashsalt": "somatlas"}):
        drawn.savefig(buffer, format="svg", metadata={"Date": None})
    with atomic_file(folder / f"{figure.name}.svg") as temporary:
        temporary.write_bytes(buffer.getvalue())
    with atomic_file(folder / f"{figure.name}.pdf") as temporary:
        drawn.savefig(temporary, format="pdf", metadata={"CreationDate": None})
    write_text(folder / f"{figure.name}.csv", figure.csv())
    return {
        "heading": figure.heading,
        "text": figure.text,
        "caption": figure.caption,
        "alt": figure.caption,
        "svg": base64.b64encode(buffer.getvalue()).decode(),
    }
