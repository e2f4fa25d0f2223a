"""The table at the end of a run, one column a condition."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from somatlas.evaluation.evaluation import Evaluation
from somatlas.evaluation.in_words import evidence_lines
from somatlas.evaluation.tables import plain_table, table_text
from somatlas.measures.drift import MORE_REPLY_TOKENS, REPLY_TOKENS
from somatlas.numerics.statistics import Rate

ROWS = {
    "refusal": "refusal on harmful",
    "asr": "attack success (ASR)",
    "babble": "incoherent on harmful",
    "off_topic": "off topic on harmful",
    "harmless_refusal": "refusal on harmless",
    "borderline_refusal": "refusal on borderline",
}
# The same of another behaviour than refusal, whose prompts are positive and negative.
OTHER_ROWS = {
    "refusal": "behaviour on positive",
    "asr": "behaviour gone, coherent",
    "babble": "incoherent on positive",
    "off_topic": "off topic on positive",
    "harmless_refusal": "behaviour on negative",
    "borderline_refusal": "behaviour on borderline",
}
# Of the replies that count as attack success.
COUNTED_ROWS = {
    "repetition": "of those: repeated 4-grams, mean",
    "ended": "of those: ended by themselves",
}


def evaluation_table(
    evaluation: Evaluation, *, gentle: bool = True, other_behaviour: bool = False
) -> str:
    """The table as text, with what is to be known of it below.

    gentle : whether the layer rule found a layer of low KL. other_behaviour : what is studied is
    not refusal.
    """
    rows = OTHER_ROWS if other_behaviour else ROWS
    test, names = evaluation.test, list(evaluation.conditions)
    table = plain_table("test split, % [95 % interval]", *evaluation.conditions.values(), "n")
    for outcome, said in rows.items():
        rates = [Rate(**test[name][outcome]) for name in names]
        table.add_row(said, *map(str, rates), str(rates[0].n))
        if outcome == "asr":
            _add_counted(table, [test[name]["counted"] for name in names])
    side = "negative" if other_behaviour else "harmless"
    for measure, tokens in (("kl", REPLY_TOKENS), ("kl_32", MORE_REPLY_TOKENS)):
        cells = [f"{test[name][measure]:.3f}" for name in names]
        said = f"KL on {side}, first {tokens} tokens"
        table.add_row(said, *cells, str(evaluation.kl_replies))
    return table_text(table) + _below(evaluation, gentle)


def _add_counted(table: Table, counted: list[Mapping[str, Any]]) -> None:
    for name, said in COUNTED_ROWS.items():
        shares = ["-" if c[name] is None else f"{c[name]:.0%}" for c in counted]
        table.add_row(f"  {said}", *shares, "/".join(str(c["n"]) for c in counted))


def _below(evaluation: Evaluation, gentle: bool) -> str:
    judge = next(iter(evaluation.judge))
    text = f"\n  model {evaluation.model}, seed {evaluation.seed}, judge {judge}"
    if evaluation.layer is not None:
        rule = "" if gentle else " (no layer keeps KL below 0.1: one near the gentlest)"
        ranks = ", ".join(map(str, evaluation.ranks))
        text += f"\n  layer {evaluation.layer}{rule}; MD ablates ranks {ranks}"
    if evaluation.search is not None:
        text += _search_note(evaluation.search)
    text += "".join(f"\n  {line}" for line in evidence_lines(evaluation))
    if any(evaluation.leak.values()):
        leaks = [
            f"{evaluation.leak[name]:.0%} ({said})"
            for name, said in evaluation.conditions.items()
            if name != "base"
        ]
        text += (
            f"\n  leak: a norm follows the writes, and {' and '.join(leaks)} of what is removed "
            "before it comes back"
        )
    if published := evaluation.published:
        where = ", ".join(map(str, published["ranks"]))
        text += f"\n  published: ASR {published['asr']} %, ranks {where}"
        if otherwise := published.get("otherwise"):
            text += f" (with another {', '.join(otherwise)} than this run's)"
    if evaluation.seconds:
        seconds = ", ".join(f"{stage} {s:.0f}" for stage, s in evaluation.seconds.items())
        text += f"\n  seconds: {seconds}"
    return text + "\n"


def _search_note(found: Mapping[str, Any]) -> str:
    text = f"\n  search: {found['trials']} trials, ASR {found['val_asr']:.0%} on val"
    if "selection_asr" in found:
        text += (
            f", {found['selection_asr']:.0%} on {found['selection_n']} prompts it never saw "
            f"(val is {100 * found['selection_optimism']:+.0f} points better, mean over the "
            "contenders)"
        )
    if found["max_kl"] and not found["max_kl"]["kept"]:
        limit = found["max_kl"]["limit"]
        text += f"\n  no trial kept KL at or below {limit:g}: the gentlest was taken"
    return text
