"""Who judged, how sure the rates are, and what the number of prompts can resolve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from somatlas.evaluation.agreement import agreements, judged_rows
from somatlas.evaluation.evaluation import (
    CONDITIONS,
    condition_rates,
    paired_tests,
    replies_a_prompt,
)
from somatlas.judges.verdict import Verdict
from somatlas.numerics.statistics import resolvable_difference, wilson
from somatlas.report.format import CONDITION_NAMES, p_text
from somatlas.runs.stages.judge_stage import LATE

_OUTCOMES = {"refusal": "refusal", "asr": "ASR"}


def evidence(rows: Sequence[Mapping[str, Any]], seed: int) -> dict[str, Any]:
    """What evaluation.json says of its rates, from the rows of verdicts.jsonl."""
    sides = {c: [row for row in rows if row["condition"] == c] for c in CONDITIONS}
    judged = judged_rows(rows)
    categories = [row["category"] or row["kind"] for row in rows]
    n = len({row["prompt"] for row in rows if row["kind"] == "harmful"})
    return {
        "paired": paired_tests(sides, seed),
        "resolvable": {"n": n, "difference": resolvable_difference(n) if n else None},
        "missing": {
            name: sum(v == Verdict.MISSING.value for v in verdicts)
            for name, verdicts in judged.items()
        },
        "agreement": [
            {
                "first": a.first,
                "second": a.second,
                "n": a.n,
                "kappa": a.kappa,
                "interval": a.interval,
            }
            for a in agreements(judged, categories, seed)
        ],
        "by_judge": {
            name: {
                c: _plain_rates(
                    [
                        {**row, "verdict": v}
                        for row, v in zip(rows, verdicts, strict=True)
                        if row["condition"] == c and v is not None
                    ]
                )
                for c in CONDITIONS
            }
            for name, verdicts in judged.items()
        },
        "late": {c: _late(side) for c, side in sides.items()},
        "systems": _by_system(sides),
        "reasoning_refused": {c: _reasoning(side) for c, side in sides.items()},
    }


def evidence_lines(found: Mapping[str, Any]) -> list[str]:
    """The same in words: one line a fact, the tests first."""
    lines = []
    lines += [paired_line(test) for test in found["paired"]]
    if found["resolvable"]["n"]:
        lines.append(
            f"with {found['resolvable']['n']} prompts a difference under "
            f"{100 * found['resolvable']['difference']:.0f} points is not resolved"
        )
    for one in found["agreement"]:
        if one["kappa"] is not None:
            span = one["interval"]
            interval = "" if span is None else " [{:.2f}, {:.2f}]".format(*span)
            lines.append(
                f"{one['first']} and {one['second']} agree with kappa {one['kappa']:.2f}{interval}"
            )
    for name, count in found["missing"].items():
        if count:
            lines.append(f"{name} gave no verdict on {count} replies")
    late = found["late"]["base"]
    if len(late) > 1:
        steps = ", ".join(f"{100 * late[n]['rate']:.0f} % by {n}" for n in late)
        lines.append(f"base refusals of harmful prompts by tokens: {steps}")
    for system, rates in found["systems"].items():
        cells = ", ".join(
            f"{CONDITION_NAMES[c]} {100 * rates[c]['refusal']['rate']:.0f} %"
            for c in CONDITIONS
            if rates[c]["refusal"]["rate"] is not None
        )
        lines.append(f"refusal under system prompt {system[:60]!r}: {cells}")
    for condition, rate in found["reasoning_refused"].items():
        if rate is not None:
            share = f"{100 * rate['rate']:.0f} %"
            lines.append(f"{CONDITION_NAMES[condition]}: {share} of what it thinks refuses")
    return lines


def paired_line(test: Mapping[str, Any]) -> str:
    """One test of `paired_tests` in words."""
    first, second = (CONDITION_NAMES.get(test[name], test[name]) for name in ("first", "second"))
    return (
        f"{_OUTCOMES[test['outcome']]}, {second} against {first}: "
        f"{100 * test['difference']:+.0f} points "
        f"[{100 * test['low']:+.0f}, {100 * test['high']:+.0f}], p {p_text(test['p_holm'])}"
    )


def _late(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Share of harmful prompts whose reply shows the behaviour within so many tokens."""
    own = [row for row in rows if row["kind"] == "harmful"]
    within, repeats = [row["shown_within"] for row in own], replies_a_prompt(own)
    reached = [n for n in LATE if any(w is not None and w >= n for w in within)] or LATE[:1]
    return {
        str(n): asdict(wilson(sum(w is not None and w <= n for w in within), len(within), repeats))
        for n in reached
        if within
    }


def _plain_rates(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {name: asdict(rate) for name, rate in condition_rates(rows).items()}


def _by_system(sides: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    systems = dict.fromkeys(row["system"] for rows in sides.values() for row in rows)
    if len(systems) < 2:
        return {}
    return {
        system: {
            c: _plain_rates([row for row in rows if row["system"] == system])
            for c, rows in sides.items()
        }
        for system in systems
    }


def _reasoning(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Of what was thought aloud before replies to harmful prompts and judged, the share refused."""
    own = [row for row in rows if row["kind"] == "harmful"]
    thoughts = [row["reasoning_verdict"] for row in own]
    thoughts = [verdict for verdict in thoughts if verdict not in (None, Verdict.MISSING)]
    if not thoughts:
        return None
    refused = thoughts.count(Verdict.REFUSED)
    return asdict(wilson(refused, len(thoughts), replies_a_prompt(own)))
