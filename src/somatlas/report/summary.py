"""The table at the end of a run, and the same as evaluation.json."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.table import Table

from somatlas.evaluation.evaluation import (
    CONDITIONS,
    answers_that_count,
    condition_rates,
    read_jsonl,
)
from somatlas.files import read_json, write_json, write_text
from somatlas.measures.drift import MORE_REPLY_TOKENS, REPLY_TOKENS
from somatlas.numerics.statistics import Rate
from somatlas.report.evidence import evidence, evidence_lines
from somatlas.report.format import CONDITION_NAMES
from somatlas.report.tables import plain_table, table_text
from somatlas.runs.folder import Run, chosen_layer
from somatlas.runs.recipes import load_recipe
from somatlas.runs.settings import STAGES

# The same of another behaviour than refusal, whose prompts are positive and negative.
OTHER_ROWS = {
    "refusal": "behaviour on positive",
    "asr": "behaviour gone, coherent",
    "babble": "incoherent on positive",
    "off_topic": "off topic on positive",
    "harmless_refusal": "behaviour on negative",
    "borderline_refusal": "behaviour on borderline",
}
ROWS = {
    "refusal": "refusal on harmful",
    "asr": "attack success (ASR)",
    "babble": "incoherent on harmful",
    "off_topic": "off topic on harmful",
    "harmless_refusal": "refusal on harmless",
    "borderline_refusal": "refusal on borderline",
}


# Of the replies that count as attack success.
COUNTED_ROWS = {
    "repetition": "of those: repeated 4-grams, mean",
    "ended": "of those: ended by themselves",
}


def summarise(run: Run) -> str:
    """Write evaluation.json and table.txt of a judged run; returns the table's text."""
    run.needs("judge")
    verdicts = read_jsonl(run.path("verdicts.jsonl"))
    sides = {c: [v for v in verdicts if v["condition"] == c] for c in CONDITIONS}
    rates = {condition: condition_rates(side) for condition, side in sides.items()}
    by_rule = run.config.layer is None
    gentle = not by_rule or read_json(run.path("layers.json"))["kl_below_limit"]
    ablation = read_json(run.path("ablate.json"))
    judged = STAGES[: STAGES.index("judge") + 1]
    seconds = {s: run.stages[s]["seconds"] for s in judged if run.is_done(s)}
    evaluation = {
        "model": run.config.model,
        "layer": chosen_layer(run),
        "ranks": ablation["ranks"],
        "seed": run.config.seed,
        "seconds": seconds,
        "leak": ablation["leak"],
        "kl_replies": ablation["kl_replies"],
        "kl_tokens": ablation["kl_tokens"],
        "search": _search_scores(run),
        "judge": read_json(run.path("judge.json"))["judges"],
        **evidence(verdicts, run.config.seed),
        "published": load_recipe(run.config.recipe).published if run.config.recipe else None,
        "test": {
            condition: {
                **{name: asdict(rate) for name, rate in rates[condition].items()},
                "kl": ablation["kl"][condition],
                "kl_32": ablation["kl_32"][condition],
                "counted": answers_that_count(sides[condition]),
            }
            for condition in CONDITIONS
        },
    }
    write_json(run.path("evaluation.json"), evaluation)
    text = _table_text(evaluation, rates, gentle, OTHER_ROWS if run.config.behaviour else ROWS)
    write_text(run.path("table.txt"), text)
    return text


def _search_scores(run: Run) -> dict[str, Any] | None:
    """ASR of the winner on val, on the selection prompts, and how much val promised too much."""
    if run.config.ids is not None:
        return None
    found = read_json(run.path("search.json"))
    scores = {
        "val_asr": found["val"]["asr"],
        "val_n": found["val"]["n"],
        "trials": len(found["trials"]),
        "max_kl": found["max_kl"],
    }
    if found["selection"] is not None:
        chosen = {name: found["selection"][name] for name in ("asr", "n", "optimism")}
        scores |= {f"selection_{name}": value for name, value in chosen.items()}
    return scores


def _add_counted(table: Table, test: dict[str, Any]) -> None:
    counted = [test[condition]["counted"] for condition in CONDITIONS]
    for name, title in COUNTED_ROWS.items():
        shares = ["-" if c[name] is None else f"{c[name]:.0%}" for c in counted]
        table.add_row(f"  {title}", *shares, "/".join(str(c["n"]) for c in counted))


def _table_text(
    evaluation: dict[str, Any],
    rates: dict[str, dict[str, Rate]],
    gentle: bool,
    rows: dict[str, str],
) -> str:
    table = plain_table("test split, % [95 % interval]", *CONDITION_NAMES.values(), "n")
    for name, title in rows.items():
        cells = [rates[condition][name] for condition in CONDITIONS]
        table.add_row(title, *map(str, cells), str(cells[0].n))
        if name == "asr":
            _add_counted(table, evaluation["test"])
    kl = [f"{evaluation['test'][condition]['kl']:.3f}" for condition in CONDITIONS]
    side = "harmless" if rows is ROWS else "negative"
    table.add_row(f"KL on {side}, first {REPLY_TOKENS} tokens", *kl, str(evaluation["kl_replies"]))
    more = [f"{evaluation['test'][condition]['kl_32']:.3f}" for condition in CONDITIONS]
    title = f"KL on {side}, first {MORE_REPLY_TOKENS} tokens"
    table.add_row(title, *more, str(evaluation["kl_replies"]))

    rule = "" if gentle else " (no layer keeps KL below 0.1: one near the gentlest)"
    ranks = ", ".join(map(str, evaluation["ranks"]))
    seconds = ", ".join(f"{stage} {s:.0f}" for stage, s in evaluation["seconds"].items())
    notes = ""
    if found := evaluation["search"]:
        notes += f"\n  search: {found['trials']} trials, ASR {found['val_asr']:.0%} on val"
        if "selection_asr" in found:
            notes += (
                f", {found['selection_asr']:.0%} on {found['selection_n']} prompts it never saw "
                f"(val is {100 * found['selection_optimism']:+.0f} points better, mean over the "
                "contenders)"
            )
        if found["max_kl"] and not found["max_kl"]["kept"]:
            limit = found["max_kl"]["limit"]
            notes += f"\n  no trial kept KL at or below {limit:g}: the gentlest was taken"
    notes += "".join(f"\n  {line}" for line in evidence_lines(evaluation))
    if any(evaluation["leak"].values()):
        leak = evaluation["leak"]
        notes += (
            f"\n  leak: a norm follows the writes, and {leak['sd']:.0%} (SD) and {leak['md']:.0%} "
            "(MD) of what is removed before it comes back"
        )
    if published := evaluation["published"]:
        where = ", ".join(map(str, published["ranks"]))
        notes += f"\n  published: ASR {published['asr']} %, ranks {where}"
    text: str = (
        table_text(table)
        + f"\n  model {evaluation['model']}, seed {evaluation['seed']}, judge "
        + next(iter(evaluation["judge"]))
        + f"\n  layer {evaluation['layer']}{rule}; MD ablates ranks {ranks}"
        + notes
        + f"\n  seconds: {seconds}\n"
    )
    return text
