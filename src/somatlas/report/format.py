"""Numbers as a reader is told them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from somatlas.directions.methods import floors
from somatlas.evaluation.in_words import p_text
from somatlas.report.prose import stability_summary
from somatlas.report.read import Facts


def rate_text(rate: Mapping[str, Any]) -> str:
    """A rate of evaluation.json with its interval, in percent."""
    if rate["rate"] is None:
        return "-"
    return f"{100 * rate['rate']:.0f} [{100 * rate['low']:.0f}, {100 * rate['high']:.0f}]"


def nats_text(mean: float, low: float, high: float) -> str:
    """A drift with its interval."""
    return f"{mean:.3f} [{low:.3f}, {high:.3f}]"


def summary_lines(facts: Facts) -> list[str]:
    """What was done, what it changed, how sure: a few sentences."""
    evaluation, search, atlas = facts.evaluation, facts.search, facts.atlas
    method = str(facts.settings.get("method"))
    if evaluation is None:
        return ["This run is not finished: no replies have been judged yet."]
    test, ranks, condition = evaluation.test, evaluation.ranks, facts.condition
    own, single = test[condition], None if condition == "sd" else test.get("sd")
    beside = [("", ""), ("", "")]
    if single is not None:
        beside = [
            ("; the single direction took it to ", _percent(single["refusal"])),
            (" with all of them, ", f"{rate_text(single['asr'])} % with the single one"),
        ]
    lines = [
        f"Ablating {len(ranks)} direction{'s' if len(ranks) != 1 else ''} (ranks "
        f"{', '.join(map(str, ranks))}) at layer {evaluation.layer} took refusal of harmful "
        f"prompts from {_percent(test['base']['refusal'])} to {_percent(own['refusal'])}"
        f"{''.join(beside[0])}."
    ]
    cost = f"a drift of {own['kl']:.2f} nats a token on harmless replies"
    lines.append(
        f"Coherent compliance: {rate_text(own['asr'])} %{''.join(beside[1])} (95 % intervals, "
        f"n = {own['asr']['n']}), at {cost}. {_compared(evaluation.paired, condition)}"
    )
    floor = floors([method]).get(method)
    if floor and not facts.settings.get("directions"):
        lines.append(
            f"This is a floor: the directions are {floor}, so nothing was learned, and "
            "only what another method does beyond this is its own."
        )
    if search and search.selection and evaluation.search:  # else the user named the set
        several = len(search.selection["contenders"]) > 1
        lines.append(
            f"The set was found in {evaluation.search['trials']} trials on other prompts, and "
            f"{'chosen' if several else 'scored again'} on prompts that the search never saw."
        )
    if atlas and atlas.stability:
        lines.append(stability_summary(atlas.stability))
    return lines


def _percent(rate: Mapping[str, Any]) -> str:
    return "-" if rate["rate"] is None else f"{100 * rate['rate']:.0f} %"


def _compared(tests: Sequence[Mapping[str, Any]], condition: str) -> str:
    """What the paired test of ASR says of the chosen directions against the single one."""
    pair = ("asr", "sd", condition)
    found = [t for t in tests if (t["outcome"], t["first"], t["second"]) == pair]
    if not found:
        return ""
    difference, p = found[0]["difference"], found[0]["p_holm"]
    if p >= 0.05:
        return f"These prompts do not tell them apart (paired, p {p_text(p)})."
    more = "Several directions do more than one"
    if difference < 0:
        more = "One direction does more than the chosen several"
    return f"{more} (paired, p {p_text(p)})."
