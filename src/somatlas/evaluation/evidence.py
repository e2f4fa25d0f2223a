"""Who judged, how sure the rates are, and what the number of prompts can resolve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from somatlas.evaluation.agreement import agreements, judged_rows
from somatlas.evaluation.rates import condition_rates, paired_tests, replies_a_prompt
from somatlas.evaluation.verdicts import LATE, VerdictRow, by_condition
from somatlas.judges.verdict import Verdict
from somatlas.numerics.statistics import resolvable_difference, wilson


def evidence(rows: Sequence[VerdictRow], seed: int) -> dict[str, Any]:
    """What evaluation.json says of its rates, from the verdicts of all conditions."""
    sides = by_condition(rows)
    judged = judged_rows(rows)
    categories = [row.category or row.kind for row in rows]
    n = len({row.prompt_id for row in rows if row.kind == "harmful"})
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
                        replace(row, verdict=v)
                        for row, v in zip(rows, verdicts, strict=True)
                        if row.condition == c and v is not None
                    ]
                )
                for c in sides
            }
            for name, verdicts in judged.items()
        },
        "late": {c: _late(side) for c, side in sides.items()},
        "systems": _by_system(sides),
        "reasoning_refused": {c: _reasoning(side) for c, side in sides.items()},
    }


def _late(rows: Sequence[VerdictRow]) -> dict[str, Any]:
    """Share of harmful prompts whose reply shows the behaviour within so many tokens."""
    own = [row for row in rows if row.kind == "harmful"]
    within, repeats = [row.shown_within for row in own], replies_a_prompt(own)
    reached = [n for n in LATE if any(w is not None and w >= n for w in within)] or LATE[:1]
    return {
        str(n): asdict(wilson(sum(w is not None and w <= n for w in within), len(within), repeats))
        for n in reached
        if within
    }


def _plain_rates(rows: Sequence[VerdictRow]) -> dict[str, Any]:
    return {name: asdict(rate) for name, rate in condition_rates(rows).items()}


def _by_system(sides: Mapping[str, Sequence[VerdictRow]]) -> dict[str, Any]:
    systems = dict.fromkeys(row.system for rows in sides.values() for row in rows)
    if len(systems) < 2:
        return {}
    return {
        system: {
            c: _plain_rates([row for row in rows if row.system == system])
            for c, rows in sides.items()
        }
        for system in systems
    }


def _reasoning(rows: Sequence[VerdictRow]) -> dict[str, Any] | None:
    """Of what was thought aloud before replies to harmful prompts and judged, the share refused."""
    own = [row for row in rows if row.kind == "harmful"]
    thoughts = [row.reasoning_verdict for row in own]
    thoughts = [verdict for verdict in thoughts if verdict not in (None, Verdict.MISSING)]
    if not thoughts:
        return None
    refused = thoughts.count(Verdict.REFUSED)
    return asdict(wilson(refused, len(thoughts), replies_a_prompt(own)))
