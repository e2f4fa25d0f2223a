"""report.html: one file that works offline, from what a run has so far.

What a stage has not made yet is named on the page, with the command that makes it. Everything that
came from a model or a prompt file is escaped by the template engine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from somatlas.atlases.record import Atlas
from somatlas.evaluation.effects import Effects
from somatlas.evaluation.evaluation import Evaluation
from somatlas.evaluation.in_words import evidence_lines
from somatlas.evaluation.table import OTHER_ROWS, ROWS
from somatlas.evaluation.verdicts import by_condition
from somatlas.files import write_text
from somatlas.measures.drift import MORE_REPLY_TOKENS, REPLY_TOKENS
from somatlas.report import rendering
from somatlas.report.control_prose import contrast_rows, contrast_text, knobs_text
from somatlas.report.cost_table import cost_rows
from somatlas.report.figures.figure_list import report_figures
from somatlas.report.format import rate_text, summary_lines
from somatlas.report.map_cells import map_cells, map_view
from somatlas.report.missing import (
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
from somatlas.runs.contents import Contents
from somatlas.runs.folder import Run
from somatlas.searches.result import SearchResult


@dataclass(frozen=True)
class Head:
    """What a page says of itself.

    missing : in words, what the command would make. impossible : what no command makes of these
    prompts. notes : of the prompts. repeat : what is needed to repeat it.
    """

    title: str
    subtitle: str
    repeat: str
    command: str = ""
    missing: Sequence[str] = ()
    impossible: Sequence[str] = ()
    notes: Sequence[str] = ()


def write_report(run: Run, *, show_completions: bool = False) -> Path:
    """Write report.html and figures/ of a run; returns the page's path.

    figures/ has every figure as SVG and PDF and its data as CSV.
    """
    facts, path = read_facts(run.folder), run.path("report.html")
    completions = _completions(run) if show_completions else []
    write_text(path, page(facts, _head(run), run.path("figures"), completions))
    return path


def page(
    facts: Facts,
    head: Head,
    figures: Path | None = None,
    completions: Sequence[Mapping[str, Any]] = (),
) -> str:
    """The page as HTML. figures : folder that every figure is written to, None for none."""
    drawn = {f.name: rendering.saved(f, figures) for f in report_figures(facts)}
    content = {"figures": drawn, "completions": completions, **_headed(facts, head)}
    content |= _measured(facts) | _described(facts)
    return rendering.rendered("report.html.j2", content)


def refresh_report(run: Run) -> Path | None:
    """Write the page again where a run has one, after a stage that it shows was done again.

    Replies are left out, whether the old page showed them or not.
    """
    return write_report(run) if run.path("report.html").exists() else None


def _head(run: Run) -> Head:
    model, config = run.folder.parent.name, run.path("config.toml")
    what = "refusal" if run.config.behaviour is None else "a behaviour"
    return Head(
        title=f"How {model} encodes {what}",
        subtitle=f"somatlas run {model}/{run.config.name}, seed {run.config.seed}, method "
        f"{run.config.method}",
        repeat=config.read_text(encoding="utf-8"),
        command=run.command("run"),
        missing=missing_parts(run),
        impossible=impossible_parts(run),
        notes=input_notes(run),
    )


def _headed(facts: Facts, head: Head) -> dict[str, Any]:
    return {
        "title": head.title,
        "subtitle": head.subtitle,
        "summary": summary_lines(facts),
        "model_notes": (facts.model or {}).get("notes", []),
        "missing": head.missing,
        "impossible": head.impossible,
        "input_notes": head.notes,
        "command": head.command,
        "config": head.repeat,
    }


def _measured(facts: Facts) -> dict[str, Any]:
    """Rates, evidence, cost and search."""
    evaluation, search = facts.evaluation, facts.search
    titles = {} if evaluation is None else evaluation.conditions
    return {
        "conditions": list(titles.values()),
        "rates": _rates(evaluation, facts.effects, facts.settings.get("behaviour") is not None),
        "evidence": evidence_lines(evaluation) if evaluation else [],
        "judges": ", ".join(evaluation.judge) if evaluation else "",
        "judge_rates": _judge_rates(evaluation),
        "costs": cost_rows(facts.cost, titles) if facts.cost else [],
        "ranks": ", ".join(map(str, facts.ablated)),
        "controls": ", ".join(c for c in titles if c not in ("base", "sd", "md")),
        "notes": _leak_note(evaluation),
        "search_text": search_text(search) if search else "",
        "trials": _contenders(search),
    }


def _described(facts: Facts) -> dict[str, Any]:
    """The map, and what the atlas says of it."""
    atlas = facts.atlas
    described = atlas is not None and atlas.neurons is not None
    steps = [] if atlas is None else atlas.steps
    clouds = [{side: step[side] for side in ("harmful", "harmless")} for step in steps]
    contrast, knobs = (atlas.contrast, atlas.knobs) if atlas else (None, None)
    found = atlas.over_refusal if atlas else None
    return {
        "cells": map_cells(facts),
        "view": map_view(facts),
        "described": described,
        "ordered": facts.map is not None and facts.map.ordered,
        "map_text": map_text(facts.map.errors) if facts.map else "",
        "information_text": information_text(atlas.information) if atlas and described else "",
        "clouds": clouds,
        "clouds_last": len(clouds) - 1,
        "clouds_n": sum(map(len, clouds[0].values())) if clouds else 0,
        "relations_text": relations_text(atlas.relations, atlas.steps) if atlas else "",
        "stability_text": stability_text(atlas.stability) if atlas and atlas.stability else "",
        "contrast_text": contrast_text(contrast) if contrast else "",
        "contrast": contrast_rows(contrast),
        "refusal_tokens": contrast["tokens"] if contrast else 0,
        "knobs_text": knobs_text(knobs) if knobs else "",
        "over_refusal_text": over_refusal_text(found) if found else "",
        "refused": _refused(atlas) if atlas and found else [],
    }


def _rates(
    evaluation: Evaluation | None, effects: Effects | None, other: bool
) -> list[dict[str, Any]]:
    if evaluation is None:
        return []
    test, names = evaluation.test, list(evaluation.conditions)
    rows = [
        {
            "title": title,
            "cells": [rate_text(test[c][name]) for c in names],
            "n": test["base"][name]["n"],
        }
        for name, title in (OTHER_ROWS if other else ROWS).items()
    ]
    return rows + (_drifts(effects, names) if effects else [])


def _drifts(effects: Effects, names: Sequence[str]) -> list[dict[str, Any]]:
    """KL over the first tokens of harmless replies, and how many replies are shorter."""
    rows = []
    for tokens, kl, shorter in (
        (REPLY_TOKENS, effects.kl, effects.kl_shorter),
        (MORE_REPLY_TOKENS, effects.kl_32, effects.kl_32_shorter),
    ):
        said = f"KL on harmless, first {tokens} tokens, nats a token"
        if shorter:
            said += f" ({shorter} of {effects.kl_replies} replies are shorter)"
        cells = [f"{kl[c]:.3f}" for c in names]
        rows.append({"title": said, "cells": cells, "n": effects.kl_replies})
    return rows


def _judge_rates(evaluation: Evaluation | None) -> list[dict[str, Any]]:
    """Attack success by each judge, where there are several."""
    if evaluation is None or len(evaluation.by_judge) < 2:
        return []
    return [
        {"title": name, "cells": [rate_text(sides[c]["asr"]) for c in evaluation.conditions]}
        for name, sides in evaluation.by_judge.items()
    ]


def _leak_note(evaluation: Evaluation | None) -> str:
    if evaluation is None or not any(evaluation.leak.values()):
        return ""
    return (
        f"A norm follows the writes: {evaluation.leak['md']:.0%} of what MD removes before it "
        "comes back."
    )


def _contenders(search: SearchResult | None) -> list[dict[str, str]]:
    if search is None or not search.selection:
        return []
    return [
        {
            "ranks": ", ".join(map(str, row["ranks"])),
            "val": f"{row['val_asr']:.0%}",
            "unseen": f"{row['selection_asr']:.0%}",
        }
        for row in search.selection["contenders"]
    ]


def _refused(atlas: Atlas) -> list[dict[str, Any]]:
    """The borderline prompts that were refused, those nearest the harmful ones first."""
    rank = {neuron["neuron"]: neuron["rank"] for neuron in atlas.neurons or ()}
    rows = [row for row in atlas.borderline or () if row["refused"]]
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
    contents = Contents(run.folder)
    sides, verdicts = contents.completions, by_condition(contents.verdicts)
    return [
        {
            "prompt": one.prompt,
            "kind": one.kind,
            "verdicts": " / ".join(rows[i].verdict for rows in verdicts.values()),
            "replies": [{"condition": c, "text": side[i].reply} for c, side in sides.items()],
        }
        for i, one in enumerate(sides["base"])
    ]
