"""An audit as plain text: the headline, a row an attack, the checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from somatlas.attacks.attack import THREATS
from somatlas.audits.audit_card import card_rows, within_one
from somatlas.audits.audit_record import AuditRecord, ModelResult
from somatlas.audits.audit_words import (
    ac50_text,
    headline,
    left_out,
    percent,
    summary,
)
from somatlas.audits.reasoning_words import TITLES, reasoning_note, reasoning_rows
from somatlas.evaluation.tables import plain_table, table_text

ATTACK_COLUMNS = (
    "attacker has",
    "trials",
    "AC50, nats [95 %]",
    "answered on average, %",
    "within 1 nat, %",
    "trials to break",
)


def audit_table(record: AuditRecord) -> str:
    """The whole audit in text."""
    names = [model.name for model in record.models.values()]
    card = plain_table("", *names, *(["difference"] if len(names) > 1 else []))
    for row in card_rows(record):
        card.add_row(*row)
    parts = [headline(record), *summary(record), "", table_text(card)]
    for model in record.models.values():
        table = plain_table(f"attacks on {model.name}", *ATTACK_COLUMNS)
        for row in attack_rows(model):
            table.add_row(*row)
        parts.append(table_text(table))
        parts += [f"  left out: {text}" for text in left_out(model)]
        if rows := reasoning_rows(model):
            table = plain_table(f"{model.name} reasons", *TITLES.values())
            for row in rows:
                table.add_row(*row)
            parts.append(table_text(table))
        if note := reasoning_note(model):
            parts.append(f"  {note}")
    parts.append("checks")
    for found in record.findings:
        mark = {True: "ok", False: "FAILED", None: "not made"}[found["passed"]]
        name = record.models[found["model"]].name
        parts.append(f"  {mark:<9}{name}: {found['name']}: {found['text']}")
    kind = "exploratory plan" if record.plan["exploratory"] else "plan"
    parts.append(f"\n{kind} {record.plan['title']}, sha256 {record.plan_sha256}")
    return "\n".join(parts)


def attack_rows(model: ModelResult) -> list[list[str]]:
    """A row an attack, the frontier over those that count first."""
    rows = [["best of those that count", "weights", "", *_costs(model.cost), ""]]
    for one in model.families:
        if one.cost is None:
            continue
        broken = "-" if one.trials_to_break is None else f"{one.trials_to_break:g}"
        name = one.title + ("" if one.headline else " *")
        rows.append([name, THREATS[one.threat], str(one.trials), *_costs(one.cost), broken])
    return rows


def csv_rows(record: AuditRecord) -> list[list[Any]]:
    """Every frontier's points: a row a model, attack and cap."""
    names = ["model", "attack", "headline", "threat", "cap", "success", "fitted", "low", "high"]
    chosen = ["attempt", "k", "val_success", "val_kl", "kl", "harmless_refusal"]
    chosen += ["borderline_refusal", "harmless_answered"]
    rows: list[list[Any]] = [[*names, *chosen]]
    for model in record.models.values():
        sides: list[tuple[str, bool, str, Any, Sequence[Any]]] = [
            ("frontier", True, "A", model.cost, model.best)
        ]
        sides += [(f.attack, f.headline, f.threat, f.cost, f.best) for f in model.families]
        for attack, head, threat, cost, best in sides:
            for i, cap in enumerate(cost["budgets"] if cost else ()):
                own = [cost[name][i] for name in ("points", "fitted", "low", "high")]
                picked = [best[i].get(name) for name in chosen]
                rows.append([model.name, attack, head, threat, cap, *own, *picked])
    return rows


def _costs(cost: Mapping[str, Any]) -> list[str]:
    return [ac50_text(cost), percent(cost["area"]), percent(within_one(cost))]
