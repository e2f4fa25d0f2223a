"""report.html: one file that works offline, from what a run has so far.

What a stage has not made yet is named on the page, with the command that makes it. Everything that
came from a model or a prompt file is escaped by the template engine.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from matplotlib import rc_context

from somatlas.evaluation.evaluation import CONDITIONS, read_completions, read_jsonl
from somatlas.files import atomic_file, write_text
from somatlas.measures.drift import MORE_REPLY_TOKENS, REPLY_TOKENS
from somatlas.report.control_prose import contrast_rows, contrast_text, knobs_text
from somatlas.report.cost_table import cost_rows
from somatlas.report.evidence import evidence_lines
from somatlas.report.figures.figure_list import ReportFigure, report_figures
from somatlas.report.format import rate_text, summary_lines
from somatlas.report.map_cells import map_cells, map_view
from somatlas.report.missing import (
    finishing_command,
    impossible_parts,
    input_notes,
    missing_parts,
)
from somatlas.report.prose import (
    information_text,
    map_text,
    over_refusal_text,
    relations_text,
    search_text,
    stability_text,
)
from somatlas.report.read import Facts, read_facts
from somatlas.report.summary import OTHER_ROWS, ROWS
from somatlas.runs.folder import Run


def write_report(run: Run, *, show_completions: bool = False) -> Path:
    """Write report.html and figures/ of a run; returns the page's path.

    figures/ has every figure as SVG and PDF and its data as CSV.
    """
    facts = read_facts(run.folder)
    drawn = {f.name: _saved(f, run.path("figures")) for f in report_figures(facts)}
    content = {"figures": drawn, "completions": _completions(run) if show_completions else []}
    content |= _run_content(run, facts) | _measured(run, facts) | _described(facts)
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    source = (files("somatlas") / "data" / "report.html.j2").read_text(encoding="utf-8")
    path = run.path("report.html")
    write_text(path, environment.from_string(source).render(content))
    return path


def refresh_report(run: Run) -> Path | None:
    """Write the page again where a run has one, after a stage that it shows was done again.

    Replies are left out, whether the old page showed them or not.
    """
    return write_report(run) if run.path("report.html").exists() else None


def _run_content(run: Run, facts: Facts) -> dict[str, Any]:
    """What run it is, and what it lacks."""
    model, config = run.folder.parent.name, run.path("config.toml")
    what = "refusal" if run.config.behaviour is None else "a behaviour"
    return {
        "title": f"How {model} encodes {what}",
        "subtitle": f"somatlas run {model}/{run.config.name}, seed {run.config.seed}, method "
        f"{run.config.method}",
        "summary": summary_lines(facts),
        "model_notes": (facts.model or {}).get("notes", []),
        "missing": missing_parts(run),
        "impossible": impossible_parts(run),
        "input_notes": input_notes(run),
        "command": finishing_command(run),
        "config": config.read_text(encoding="utf-8"),
    }


def _measured(run: Run, facts: Facts) -> dict[str, Any]:
    """Rates, evidence, cost and search."""
    evaluation, search = facts.evaluation, facts.search
    return {
        "rates": _rates(evaluation, facts.ablate, run.config.behaviour is not None),
        "evidence": evidence_lines(evaluation) if evaluation else [],
        "judges": ", ".join(evaluation["judge"]) if evaluation else "",
        "judge_rates": _judge_rates(evaluation),
        "costs": cost_rows(facts.cost) if facts.cost else [],
        "ranks": ", ".join(map(str, facts.ablated)),
        "notes": _leak_note(evaluation),
        "search_text": search_text(search) if search else "",
        "trials": _contenders(search),
    }


def _described(facts: Facts) -> dict[str, Any]:
    """The map, and what the atlas says of it."""
    atlas = facts.atlas or {}
    described, stability = "neurons" in atlas, atlas.get("stability")
    clouds = [{side: s[side] for side in ("harmful", "harmless")} for s in atlas.get("steps", [])]
    found, contrast, knobs = (atlas.get(n) for n in ("over_refusal", "contrast", "knobs"))
    return {
        "cells": map_cells(facts),
        "view": map_view(facts),
        "described": described,
        "ordered": facts.map is not None and facts.map.ordered,
        "map_text": map_text(facts.map.errors) if facts.map else "",
        "information_text": information_text(atlas["information"]) if described else "",
        "clouds": clouds,
        "clouds_last": len(clouds) - 1,
        "clouds_n": sum(map(len, clouds[0].values())) if clouds else 0,
        "relations_text": relations_text(atlas["relations"], atlas["steps"]) if atlas else "",
        "stability_text": stability_text(stability) if stability else "",
        "contrast_text": contrast_text(contrast) if contrast else "",
        "contrast": contrast_rows(contrast),
        "refusal_tokens": contrast["tokens"] if contrast else 0,
        "knobs_text": knobs_text(knobs) if knobs else "",
        "over_refusal_text": over_refusal_text(found) if found else "",
        "refused": _refused(atlas) if found else [],
    }


def _rates(
    evaluation: Mapping[str, Any] | None, effects: Mapping[str, Any] | None, other: bool
) -> list[dict[str, Any]]:
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
    return rows + (_drifts(effects) if effects else [])


def _drifts(effects: Mapping[str, Any]) -> list[dict[str, Any]]:
    """KL over the first tokens of harmless replies, and how many replies are shorter."""
    rows = []
    for tokens, name in ((REPLY_TOKENS, "kl"), (MORE_REPLY_TOKENS, f"kl_{MORE_REPLY_TOKENS}")):
        n, shorter = effects["kl_replies"], effects[f"{name}_shorter"]
        title = f"KL on harmless, first {tokens} tokens, nats a token"
        if shorter:
            title += f" ({shorter} of {n} replies are shorter)"
        cells = [f"{effects[name][c]:.3f}" for c in CONDITIONS]
        rows.append({"title": title, "cells": cells, "n": n})
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


def _refused(atlas: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The borderline prompts that were refused, those nearest the harmful ones first."""
    rank = {neuron["neuron"]: neuron["rank"] for neuron in atlas["neurons"]}
    rows = [row for row in atlas["borderline"] if row["refused"]]
    return [
        {
            "prompt": row["prompt"],
            "rank": "–" if rank[row["neuron"]] is None else rank[row["neuron"]],
            "place": f"{row['place']:.2f}",
        }
        for row in sorted(rows, key=lambda row: -row["place"])
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
    return {"caption": figure.caption, "svg": base64.b64encode(buffer.getvalue()).decode()}
