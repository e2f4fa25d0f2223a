"""What the numbers of an evaluation say, a line each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from somatlas.evaluation.conditions import title
from somatlas.evaluation.evaluation import Evaluation

_OUTCOMES = {"refusal": "refusal", "asr": "ASR"}


def p_text(p: float) -> str:
    """A p value with its sign of relation, to three places."""
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"


def evidence_lines(found: Evaluation) -> list[str]:
    """What `somatlas.evaluation.evidence` found in words: one line a fact, the tests first."""
    lines = []
    lines += [paired_line(test) for test in found.paired]
    if found.resolvable["n"]:
        lines.append(
            f"with {found.resolvable['n']} prompts a difference under "
            f"{100 * found.resolvable['difference']:.0f} points is not resolved"
        )
    for one in found.agreement:
        if one["kappa"] is not None:
            span = one["interval"]
            interval = "" if span is None else " [{:.2f}, {:.2f}]".format(*span)
            lines.append(
                f"{one['first']} and {one['second']} agree with kappa {one['kappa']:.2f}{interval}"
            )
    for name, count in found.missing.items():
        if count:
            lines.append(f"{name} gave no verdict on {count} replies")
    late = found.late["base"]
    if len(late) > 1:
        steps = ", ".join(f"{100 * late[n]['rate']:.0f} % by {n}" for n in late)
        lines.append(f"base refusals of harmful prompts by tokens: {steps}")
    for system, rates in found.systems.items():
        cells = ", ".join(
            f"{title(c)} {100 * rates[c]['refusal']['rate']:.0f} %"
            for c in rates
            if rates[c]["refusal"]["rate"] is not None
        )
        lines.append(f"refusal under system prompt {system[:60]!r}: {cells}")
    for condition, rate in found.reasoning_refused.items():
        if rate is not None:
            share = f"{100 * rate['rate']:.0f} %"
            lines.append(f"{title(condition)}: {share} of what it thinks refuses")
    return lines


def paired_line(test: Mapping[str, Any]) -> str:
    """One test of `paired_tests` in words."""
    first, second = (title(test[name]) for name in ("first", "second"))
    return (
        f"{_OUTCOMES[test['outcome']]}, {second} against {first}: "
        f"{100 * test['difference']:+.0f} points "
        f"[{100 * test['low']:+.0f}, {100 * test['high']:+.0f}], p {p_text(test['p_holm'])}"
    )
