"""What a model that reasons answers under an edit, by where its reasoning comes from, in words."""

from __future__ import annotations

from typing import Any

from somatlas.audits.audit_record import AuditRecord, ModelResult
from somatlas.audits.audit_words import percent, points

TITLES = {
    "regenerated": "reasoning regenerated",
    "fixed": "the unedited model's",
    "absent": "absent",
}


def reasoning_rows(model: ModelResult) -> list[list[str]]:
    """Answered, refused and the difference in three columns; none where it does not reason."""
    own = model.reasoning
    if "success" not in own:
        return []
    change = ["", *(points(own["change"][name]) for name in list(TITLES)[1:])]
    return [
        ["Harmful prompts answered, %", *(percent(own["success"][name]) for name in TITLES)],
        ["Refused, %", *(percent(own["refusal"][name]) for name in TITLES)],
        ["Answered, against reasoning regenerated", *change],
    ]


def reasoning_note(model: ModelResult) -> str:
    """Under which edit, and what became of the reasoning; empty where there is nothing to say."""
    own = model.reasoning
    if not own.get("reasons"):
        return ""
    if own["left_out"]:
        return f"Reasoning regenerated, fixed and absent: left out, as {own['left_out']}."
    said = [
        f"Answers are made under {own['attack']}, {own['attempt']} (chosen within {own['cap']:g} "
        f"nats of drift), of {own['tokens']} tokens at most; absent by {own['absent_by']}."
    ]
    for name, whose in (("regenerated", "edited"), ("fixed", "unedited")):
        if own["cut"][name]:
            said.append(
                f"Of {own['prompts']} thoughts of the {whose} model {own['cut'][name]} were closed "
                f"at {own['tokens']} tokens."
            )
        if own["without"][name]:
            said.append(
                f"On {own['without'][name]} of {own['prompts']} prompts the {whose} model does not "
                "reason."
            )
    return " ".join(said)


def reasoning_csv(record: AuditRecord) -> list[list[Any]]:
    """A row a model and column; none where no model reasons."""
    shares = [f"{name}{end}" for name in ("success", "refusal") for end in ("", "_low", "_high")]
    names = ["model", "attack", "attempt", "cap", "reasoning", *shares, "cut", "without"]
    rows: list[list[Any]] = []
    for model in record.models.values():
        own = model.reasoning
        for column in TITLES if "success" in own else ():
            found = [own[share][column][end] for share in ("success", "refusal") for end in _ENDS]
            cut = [own[what].get(column) for what in ("cut", "without")]
            place = [own["attack"], own["attempt"], own["cap"]]
            rows.append([model.name, *place, column, *found, *cut])
    return [names, *rows] if rows else []


_ENDS = ("value", "low", "high")
