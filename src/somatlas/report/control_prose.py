"""What the page says of the controls: the harmless side, and one knob or many."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from somatlas.numerics.statistics import resolvable_difference
from somatlas.report.format import p_text, rate_text

_SIDES = {
    "matched": "their own partners in form and wording",
    "shuffled": "partners of prompts on other topics",
    "given": "the harmless prompts as given",
    "general": "everyday requests of many forms",
}
_LEVEL = 0.05


def contrast_rows(contrast: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """The table of the sides, the model as it is first; none where nothing was compared."""
    if not contrast or not contrast["sides"]:
        return []
    base = {"title": "model as it is", "n": "", "cosine": "", "kl": "", **_cells(contrast["base"])}
    return [base] + [
        {
            "title": f"{side['side']}: {_SIDES[side['side']]}",
            "n": f"{side['n_harmful']} + {side['n_harmless']}",
            "cosine": f"{side['cosine']:.2f}",
            "kl": f"{side['kl']:.3f}",
            **_cells(side),
        }
        for side in contrast["sides"]
    ]


def contrast_text(contrast: Mapping[str, Any]) -> str:
    """Whether the harmless side decides what SD does, and what could not be compared."""
    sides, text = contrast["sides"], ""
    if sides:
        n, first = contrast["differ"]["n"], sides[0]
        text = (
            "The same harmful train prompts, contrasted with other harmless ones, and each mean "
            f"difference ablated alone, on {n} harmful test prompts. "
        )
        before, after = contrast["base"]["refusal"]["rate"], first["refusal"]["rate"]
        p = contrast["effect"]["p"]
        way = f"took refusal from {_percent(before)} to {_percent(after)} (p {p_text(p)})"
        if p >= _LEVEL:
            text += f"That of the {first['side']} side shows no effect on refusal here: it {way}. "
        else:
            text += f"That of the {first['side']} side does something: it {way}. "
        p = contrast["differ"]["p"]
        least = f"{100 * resolvable_difference(n):.0f}" if n else "100"
        text += (
            f"The sides differ in the refusal they leave (Cochran's Q, p {p_text(p)}): which "
            "harmless prompts stand on the other side decides what the direction does."
            if p < _LEVEL
            else f"The sides do not differ in the refusal they leave (Cochran's Q, p {p_text(p)}), "
            f"as far as so few prompts tell: a difference of two under {least} points is not "
            "resolved."
        )
    lacking = "; ".join(contrast["missing"])
    return f"{text} Not compared: {lacking}.".strip() if lacking else text


def knobs_text(knobs: Mapping[str, Any]) -> str:
    """Whether the directions, each alone, differ in effect, and in kind."""
    cells, differ = knobs["cells"], knobs["differ"]
    text = (
        f"Each of {len(cells)} directions was ablated alone, on {differ['harmful']['n']} harmful "
        f"test prompts: {_range(cells, 'refusal')} of them are still refused, "
        f"{_percent(knobs['sd']['refusal']['rate'])} under SD"
    )
    if "borderline" in differ:
        text += (
            f"; of {differ['borderline']['n']} borderline ones "
            f"{_range(cells, 'borderline_refusal')}, "
            f"{_percent(knobs['sd']['borderline_refusal']['rate'])} under SD"
        )
    least = 100 * resolvable_difference(differ["harmful"]["n"])
    tested = [f"{kind} p {p_text(found['p'])}" for kind, found in differ.items() if found["n"]]
    some = any(found["p"] < _LEVEL for found in differ.values())
    text += f". The directions {'differ' if some else 'do not differ'} in how much refusal they "
    text += f"leave (Cochran's Q over the same prompts: {', '.join(tested)})"
    if not some:
        text += (
            f", as far as so few prompts tell: a difference of two under {least:.0f} points is not "
            "resolved."
        )
    else:
        text += "."
    one = knobs["one_knob"]
    if one is None:
        return text + (
            " There are no borderline prompts, so whether they differ in kind is not tested."
        )
    if one["p"] < _LEVEL:
        return text + (
            " They differ in kind: some leave less refusal of harmful prompts but more of "
            "borderline ones than others, beyond what one strength a direction would give "
            f"(p {p_text(one['p'])}): more than one knob."
        )
    return text + (
        " No difference in kind is shown: one strength a direction accounts for the refusals of "
        f"harmful and of borderline prompts (p {p_text(one['p'])}), as settings of one knob would. "
        "That so few prompts show none is no proof that there is none."
    )


def _cells(rates: Mapping[str, Any]) -> dict[str, str]:
    names = ("refusal", "harmless_refusal", "borderline_refusal")
    return {name: rate_text(rates[name]) if name in rates else "-" for name in names}


def _range(cells: Any, name: str) -> str:
    rates = [cell[name]["rate"] for cell in cells if cell[name]["rate"] is not None]
    if not rates:
        return "-"
    low, high = (f"{100 * rate:.0f}" for rate in (min(rates), max(rates)))
    return f"{low} %" if low == high else f"{low} to {high} %"


def _percent(rate: float | None) -> str:
    return "-" if rate is None else f"{100 * rate:.0f} %"
