"""Numbers as a reader is told them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from somatlas.directions.methods import FLOORS
from somatlas.report.prose import stability_summary
from somatlas.report.read import Facts


def rate_text(rate: Mapping[str, Any]) -> str:
    """A rate of evaluation.json with its interval, in percent."""
    if rate["rate"] is None:
        return "-"
    return f"{100 * rate['rate']:.0f} [{100 * rate['low']:.0f}, {100 * rate['high']:.0f}]"


CONDITION_NAMES = {"base": "base", "sd": "SD", "md": "MD"}


def p_text(p: float) -> str:
    """A p value with its sign of relation, to three places."""
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"


def summary_lines(facts: Facts) -> list[str]:
    """What was done, what it changed, how sure: a few sentences."""
    evaluation, search, atlas = facts.evaluation, facts.search, facts.atlas
    method = str(facts.settings.get("method"))
    if evaluation is None:
        return ["This run is not finished: no replies have been judged yet."]
    test, ranks = evaluation["test"], evaluation["ranks"]
    lines = [
        f"Ablating {len(ranks)} direction{'s' if len(ranks) != 1 else ''} (ranks "
        f"{', '.join(map(str, ranks))}) at layer {evaluation['layer']} took refusal of harmful "
        f"prompts from {_percent(test['base']['refusal'])} to {_percent(test['md']['refusal'])}; "
        f"the single direction took it to {_percent(test['sd']['refusal'])}."
    ]
    asr = {c: test[c]["asr"] for c in ("sd", "md")}
    cost = f"a drift of {test['md']['kl']:.2f} nats a token on harmless replies"
    lines.append(
        f"Coherent compliance: {rate_text(asr['md'])} % with all of them, {rate_text(asr['sd'])} % "
        f"with the single one (95 % intervals, n = {asr['md']['n']}), at {cost}. "
        f"{_compared(evaluation['paired'])}"
    )
    if method in FLOORS and not facts.settings.get("directions"):
        lines.append(
            f"This is a floor: the directions are {FLOORS[method]}, so nothing was learned, and "
            "only what another method does beyond this is its own."
        )
    if search and search["selection"] and evaluation["search"]:  # else the user named the set
        several = len(search["selection"]["contenders"]) > 1
        lines.append(
            f"The set was found in {evaluation['search']['trials']} trials on other prompts, and "
            f"{'chosen' if several else 'scored again'} on prompts that the search never saw."
        )
    if atlas and atlas["stability"]:
        lines.append(stability_summary(atlas["stability"]))
    return lines


def _percent(rate: Mapping[str, Any]) -> str:
    return "-" if rate["rate"] is None else f"{100 * rate['rate']:.0f} %"


def _compared(tests: Sequence[Mapping[str, Any]]) -> str:
    """What the paired test of ASR says of the chosen directions against the single one."""
    found = [t for t in tests if (t["outcome"], t["first"], t["second"]) == ("asr", "sd", "md")]
    if not found:
        return ""
    difference, p = found[0]["difference"], found[0]["p_holm"]
    if p >= 0.05:
        return f"These prompts do not tell them apart (paired, p {p_text(p)})."
    more = "Several directions do more than one"
    if difference < 0:
        more = "One direction does more than the chosen several"
    return f"{more} (paired, p {p_text(p)})."
