"""An audit in words: what a person grasps first, and how numbers that may be bounds are told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from somatlas.audits.audit_record import AuditRecord, ModelResult

# Verdicts of the rule as a sentence about the model and the other one.
_VERDICTS = {
    "dearer to break": "{model} is dearer to break than {against}",
    "dearer at a price": "{model} is dearer to break than {against}, at a price",
    "cheaper to break": "{model} is cheaper to break than {against}",
    "not dearer": "No sign that {model} is dearer to break than {against}",
    "undecided": "Undecided: this audit cannot say whether {model} is dearer to break than "
    "{against}",
}


def headline(record: AuditRecord) -> str:
    """One sentence."""
    model = record.models["model"]
    if record.verdict is None:
        return f"{model.name}: half of the harmful prompts are answered {reached(model)}"
    said = _VERDICTS[record.verdict["word"]]
    return said.format(model=model.name, against=record.models["against"].name)


def summary(record: AuditRecord) -> list[str]:
    """What stands below the headline: price, over-refusal, what was not looked at."""
    lines = []
    model, against = record.models["model"], record.models.get("against")
    if against is not None and record.ratio is not None and record.area is not None:
        lines.append(
            f"Half of the harmful prompts are answered {reached(model)} in {model.name} and "
            f"{reached(against)} in {against.name}: a ratio of {ratio_text(record.ratio)}. Mean "
            f"success over all drifts differs by {points(record.area)}."
        )
    for one in record.models.values():
        lines.append(_as_it_is(one))
    if record.verdict is not None:
        failed = [row for row in record.findings if row["passed"] is False]
        lines += [
            f"Failed in {record.models[row['model']].name}: {row['name']} ({row['text']})."
            for row in failed
        ]
        lines += [f"Price: {text}." for text in record.verdict["reasons"] if _is_price(text)]
        if record.verdict["unmeasured"]:
            lines.append(f"Not looked at: {', '.join(record.verdict['unmeasured'])}.")
    if record.plan["exploratory"]:
        lines.append("Exploratory: the plan is none of the named ones.")
    return lines


def reached(model: ModelResult) -> str:
    """At what drift half are answered, with its interval, as a part of a sentence."""
    cost = model.cost["ac50"]
    caps = model.cost["budgets"]
    interval = _interval(cost, caps)
    if cost["most"] is None:
        return f"at no drift tried (not reached within {caps[-1]:g} nats {interval})"
    if cost["least"] != cost["most"]:
        return f"at {caps[0]:g} nats of drift at most {interval}"
    return f"at {number(cost['least'])} nats of drift {interval}"


def ac50_text(cost: Mapping[str, Any] | None) -> str:
    """AC50 in a table's cell."""
    if cost is None:
        return "-"
    own, caps = cost["ac50"], cost["budgets"]
    if own["most"] is None:
        return f"> {caps[-1]:g} {_interval(own, caps)}"
    if own["least"] != own["most"]:
        return f"< {caps[0]:g} {_interval(own, caps)}"
    return f"{number(own['least'])} {_interval(own, caps)}"


def ratio_text(ratio: Mapping[str, Any]) -> str:
    """A ratio that may be bounded on one side or on none."""
    high = "∞" if ratio["high"] is None else number(ratio["high"])
    interval = f"[{number(ratio['low'])}, {high}]"
    if ratio["most"] is None and ratio["least"] == 0:
        return f"unknown size {interval}, as neither model was broken"
    if ratio["most"] is None:
        return f"more than {number(ratio['least'])} {interval}"
    if ratio["least"] != ratio["most"]:
        return f"{number(ratio['least'])} to {number(ratio['most'])} {interval}"
    return f"{number(ratio['least'])} {interval}"


def rank_text(rank: Mapping[str, Any] | None) -> str:
    """How many directions break the model."""
    if rank is None:
        return "-"
    if rank["most"] is None:
        return f"> {rank['least']:.0f}"
    high = "∞" if rank["high"] is None else f"{rank['high']:.0f}"
    return f"{rank['least']:.0f} [{rank['low']:.0f}, {high}]"


def percent(estimate: Mapping[str, Any] | None) -> str:
    """A share with its interval, in percent."""
    if estimate is None:
        return "-"
    value, low, high = (100 * estimate[name] for name in ("value", "low", "high"))
    return f"{value:.0f} [{low:.0f}, {high:.0f}]"


def points(estimate: Mapping[str, Any]) -> str:
    """A difference of shares with its interval."""
    value, low, high = (100 * estimate[name] for name in ("value", "low", "high"))
    return f"{value:+.0f} points [{low:+.0f}, {high:+.0f}]"


def number(value: float) -> str:
    """Two digits that mean something."""
    return f"{value:.2g}" if value < 10 else f"{value:.0f}"


def left_out(model: ModelResult) -> Sequence[str]:
    """Attacks that were not tried, and why."""
    return [f"{one.title}: {one.left_out}" for one in model.families if one.left_out]


def _as_it_is(model: ModelResult) -> str:
    own = model.unattacked
    said = (
        f"As it is {model.name} answers {percent(own['success'])} % of the harmful prompts and "
        f"refuses {percent(own['harmless_refusal'])} % of the harmless"
    )
    if own["borderline_refusal"] is not None:
        said += f" and {percent(own['borderline_refusal'])} % of the borderline ones"
    if model.harmless_at_ac50 is None:
        return f"{said}."
    return f"{said}; where it breaks it answers {model.harmless_at_ac50:.0%} of the harmless ones."


def _is_price(reason: str) -> bool:
    return reason.startswith(("refusals of", "the models lie"))


def _interval(cost: Mapping[str, Any], caps: Sequence[float]) -> str:
    low = f"< {caps[0]:g}" if cost["low"] == 0 else number(cost["low"])
    high = f"> {caps[-1]:g}" if cost["high"] is None else number(cost["high"])
    return f"[{low}, {high}]"
