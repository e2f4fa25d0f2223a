"""An audit in words: what a person grasps first, and how numbers that may be bounds are told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from somatlas.attacks.attack_cost import HALF, Estimate
from somatlas.audits.audit_record import AuditRecord, ModelResult

Numbers = Mapping[str, Any]


def headline(record: AuditRecord) -> str:
    """One sentence."""
    model, against = record.models["model"], record.models.get("against")
    if against is None or record.verdict is None or record.ratio is None:
        return _alone(model)
    for one in (model, against):
        if is_open(one):
            return _alone(one)
    names = {"model": model.name, "against": against.name}
    word = record.verdict["word"]
    if word == "undecided":
        said = "Undecided: this audit cannot say whether {model} is dearer to break than {against}"
    elif word == "not dearer":
        said = "It is not shown that {model} is dearer to break than {against}"
    else:
        said = f"{{model}} takes {_times(record.ratio)} the drift of {{against}} to break"
        said += ", at a price" if word == "dearer at a price" else ""
    return said.format(**names)


def summary(record: AuditRecord) -> list[str]:
    """What stands below the headline: how sure it is, its price, what was not looked at."""
    lines = []
    model, against = record.models["model"], record.models.get("against")
    if against is not None and record.ratio is not None and record.area is not None:
        lines.append(
            f"{model.name} answers half of the harmful prompts {reached(model)}, {against.name} "
            f"{reached(against)}: a ratio of {ratio_text(record.ratio)}. Averaged over all "
            f"drifts they answer {_mean(model)} and {_mean(against)}: {points(record.area)}."
        )
    elif not is_open(model):
        lines.append(f"{model.name} answers half of the harmful prompts {reached(model)}.")
    if record.verdict is not None:
        lines += [f"The price: {text}." for text in record.verdict["reasons"] if _is_price(text)]
    lines += [
        f"Failed in {record.models[row['model']].name}: {row['name']} ({row['text']})."
        for row in record.findings
        if row["passed"] is False
    ]
    if record.verdict is not None and record.verdict["unmeasured"]:
        lines.append(f"Not looked at: {', '.join(record.verdict['unmeasured'])}.")
    if record.plan["exploratory"]:
        lines.append(
            "Exploratory: the plan is none of the named ones, so it may have been chosen by its "
            "results."
        )
    return lines


def is_open(model: ModelResult) -> bool:
    """Whether the model answers half of the harmful prompts without any attack."""
    own = model.unattacked["success"]
    return own is not None and bool(own["value"] >= HALF)


def reached(model: ModelResult) -> str:
    """At what drift half are answered, with its interval, as a part of a sentence."""
    cost, caps = model.cost["ac50"], model.cost["budgets"]
    if is_open(model):
        return "without any attack"
    if cost["most"] is None:
        return f"at no drift tried ({ac50_text(model.cost)})"
    if cost["least"] != cost["most"]:
        return f"at {caps[0]:g} nats of drift or less{_interval(cost, caps)}"
    return f"at {number(cost['least'])} nats of drift{_interval(cost, caps)}"


def ac50_text(cost: Numbers | None) -> str:
    """AC50 in a table's cell."""
    if cost is None:
        return "-"
    own, caps = cost["ac50"], cost["budgets"]
    if own["most"] is None:
        return f"not reached within {caps[-1]:g}{_interval(own, caps)}"
    if own["least"] != own["most"]:
        return f"< {caps[0]:g}{_interval(own, caps)}"
    return f"{number(own['least'])}{_interval(own, caps)}"


def ratio_text(ratio: Numbers) -> str:
    """A ratio that may be bounded on one side or on none, with its interval."""
    high = "∞" if ratio["high"] is None else number(ratio["high"])
    interval = f" [{number(ratio['low'])}, {high}]"
    if ratio["least"] == 0 and ratio["most"] is None:
        return f"unknown size{interval}, as the drifts tried bound neither"
    if ratio["most"] is None:
        return f"more than {number(ratio['least'])}{interval}"
    if ratio["least"] == 0:
        return f"less than {number(ratio['most'])}{interval}"
    return f"{number(ratio['least'])}{interval}"


def rank_text(rank: Numbers | None) -> str:
    """How many directions break the model."""
    if rank is None:
        return "-"
    most = max(map(int, rank["success"]))
    if rank["most"] is None:
        return f"more than {rank['least']:.0f}{_ranks(rank, most)}"
    return f"{rank['least']:.0f}{_ranks(rank, most)}"


def percent(estimate: Numbers | None) -> str:
    """A share with its interval, in percent."""
    if estimate is None:
        return "-"
    value, low, high = (100 * estimate[name] for name in ("value", "low", "high"))
    return f"{value:.0f} [{low:.0f}, {high:.0f}]"


def points(estimate: Numbers) -> str:
    """A difference of shares with its interval."""
    return Estimate(**estimate).points


def number(value: float) -> str:
    """Two digits that mean something."""
    return f"{value:#.2g}" if 0 < value < 10 else f"{value:.0f}"


def left_out(model: ModelResult) -> Sequence[str]:
    """Attacks that were not tried, and why."""
    return [f"{one.title}: {one.left_out}" for one in model.families if one.left_out]


def _alone(model: ModelResult) -> str:
    if is_open(model):
        own = model.unattacked["success"]
        assert own is not None
        return (
            f"{model.name} answers {own['value']:.0%} of the harmful prompts as it is: there is "
            "no refusal to break"
        )
    cost, caps = model.cost["ac50"], model.cost["budgets"]
    if cost["most"] is None:
        return f"{model.name} does not break within {caps[-1]:g} nats of drift"
    if cost["least"] != cost["most"]:
        return f"{model.name} breaks within {caps[0]:g} nats of drift, the least that was tried"
    return f"{model.name} breaks at {number(cost['least'])} nats of drift"


def _times(ratio: Numbers) -> str:
    """A ratio as a part of the headline: the lower bound where that alone is known."""
    if ratio["most"] is None:
        return f"at least {number(max(ratio['least'], ratio['low']))} times"
    if ratio["least"] == 0:
        return f"at most {number(ratio['most'])} times"
    return f"{number(ratio['least'])} times"


def _is_price(reason: str) -> bool:
    return reason.startswith(("refusals of", "the models lie"))


def _interval(cost: Numbers, caps: Sequence[float]) -> str:
    """An interval that may reach over either end; nothing where it says no more than the number."""
    if cost["most"] is None and cost["low"] >= caps[-1]:
        return ""
    if cost["least"] != cost["most"] and cost["high"] is not None and cost["high"] <= caps[0]:
        return ""
    low = f"< {caps[0]:g}" if cost["low"] == 0 else number(cost["low"])
    high = f"> {caps[-1]:g}" if cost["high"] is None else number(cost["high"])
    return f" [{low}, {high}]"


def _ranks(rank: Numbers, most: int) -> str:
    high = f"> {most}" if rank["high"] is None else f"{rank['high']:.0f}"
    return f" [{rank['low']:.0f}, {high}]"


def _mean(model: ModelResult) -> str:
    return f"{model.cost['area']['value']:.0%}"
