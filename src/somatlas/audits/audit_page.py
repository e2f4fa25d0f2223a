"""audit.html: a robustness card that works offline; beside it JSON, CSV and the figures.

It shows numbers alone: replies stay in the audit's folder, in a file of their own.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w

from somatlas.audits.audit_card import auroc_text, card_rows
from somatlas.audits.audit_curves import cell_rows
from somatlas.audits.audit_figures import audit_figures
from somatlas.audits.audit_record import AuditRecord, ModelResult
from somatlas.audits.audit_table import ATTACK_COLUMNS, attack_rows, audit_table, csv_rows
from somatlas.audits.audit_words import headline, left_out, summary
from somatlas.audits.reasoning_words import TITLES, reasoning_csv, reasoning_note, reasoning_rows
from somatlas.files import write_text
from somatlas.report import rendering

PASSED = {True: "yes", False: "no", None: "not made"}


def write_audit(record: AuditRecord, folder: Path) -> Path:
    """Write audit.json, audit.csv, table.txt, figures/ and audit.html, and reasoning.csv where a
    model reasons; returns the page's path."""
    record.write(folder)
    _write_csv(folder / "audit.csv", csv_rows(record))
    if rows := reasoning_csv(record):
        _write_csv(folder / "reasoning.csv", rows)
    write_text(folder / "table.txt", audit_table(record) + "\n")
    path = folder / "audit.html"
    write_text(path, audit_page(record, folder / "figures"))
    return path


def _write_csv(path: Path, rows: Sequence[Sequence[Any]]) -> None:
    buffer = io.StringIO()
    csv.writer(buffer).writerows(rows)
    write_text(path, buffer.getvalue())


def audit_page(record: AuditRecord, figures: Path | None = None) -> str:
    """The page as HTML. figures : folder that every figure is written to, None for none."""
    names = {role: model.name for role, model in record.models.items()}
    shown = {name: value for name, value in record.plan.items() if value is not None}
    content = {
        "title": headline(record),
        "exploratory": record.plan["exploratory"],
        "summary": summary(record),
        "figures": {
            figure.name: rendering.saved(figure, figures) for figure in audit_figures(record)
        },
        "notes": [f"Of {m.name}: {note}" for m in record.models.values() for note in m.notes],
        "card": card_rows(record),
        "names": [model.name for model in record.models.values()],
        "columns": ATTACK_COLUMNS,
        "reasoning_columns": list(TITLES.values()),
        "models": [_model(model) for model in record.models.values()],
        "recognition": [row for m in record.models.values() for row in _recognition(m)],
        "findings": [
            {**row, "model": names[row["model"]], "passed": PASSED[row["passed"]]}
            for row in record.findings
        ],
        "verdict": record.verdict,
        "limits": record.plan["thresholds"],
        "plan_kind": "Exploratory plan" if record.plan["exploratory"] else "Plan",
        "plan_title": record.plan["title"],
        "plan": tomli_w.dumps(shown),
        "sha256": record.plan_sha256,
        "version": record.somatlas,
    }
    return rendering.rendered("audit.html.j2", content)


def _model(model: ModelResult) -> dict[str, Any]:
    worst = ""
    if model.worst is not None:
        title = next(one.title for one in model.families if one.attack == model.worst["attack"])
        worst = f"Strongest by itself on test, told after the fact: {title}."
    return {
        "name": model.name,
        "rows": attack_rows(model),
        "worst": worst,
        "floor": _floor(model),
        "left_out": left_out(model),
        "cells": cell_rows(model),
        "best": [_best(row) for row in model.best],
        "reasoning": reasoning_rows(model),
        "reasoning_note": reasoning_note(model),
    }


def _floor(model: ModelResult) -> str:
    """What chance alone breaks."""
    said = []
    for one in model.families:
        rates = [(int(k), rate) for k, rate in one.chance_to_break.items() if rate["n"]]
        if rates:
            told = [f"{100 * rate['rate']:.0f} % with k = {k}" for k, rate in sorted(rates)]
            said.append(f"Sets of {one.title} that break it within 1 nat: {', '.join(told)}.")
    return " ".join(said)


def _best(row: Mapping[str, Any]) -> dict[str, str]:
    name = (
        row["attack"] if row["attack"] == row["attempt"] else f"{row['attack']}: {row['attempt']}"
    )
    return {
        "cap": f"{row['cap']:g}",
        "attempt": name,
        "k": str(row["k"]),
        "val": _percent(row["val_success"]),
        "test": _percent(row["success"]),
        "refused": _percent(row["refusal"]),
        "kl": f"{row['kl']:.3f}",
        "answered": _percent(row.get("harmless_answered")),
        "harmless": _percent(row.get("harmless_refusal")),
        "borderline": _percent(row.get("borderline_refusal")),
        "repetition": _percent(row.get("repetition")),
    }


def _recognition(model: ModelResult) -> list[dict[str, str]]:
    titles = {"none": "as it is", "edited": "under the edit that decides"}
    return [
        {
            "title": f"{model.name}, {titles[name]}",
            **{side: auroc_text(row[side]) for side in ("harmless", "borderline", "length")},
        }
        for name, row in model.recognition.items()
    ]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f}"
