"""The checks of an audit's own soundness, and the verdict, from what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from somatlas.attacks.attack_cost import Estimate, compared, difference_of
from somatlas.attacks.findings import (
    Finding,
    bite_finding,
    budget_findings,
    floor_finding,
    hidden_finding,
    judge_finding,
    judges_finding,
    transfer_finding,
    verdict,
)
from somatlas.audits.audit_record import plain
from somatlas.audits.measured_model import (
    GRADIENT,
    RANDOM,
    TRANSFER,
    Measured,
    deciding_place,
)
from somatlas.judges.verdict import Verdict


def findings_of(found: Measured) -> list[Finding]:
    """Every check of one model; those that could not be made say why."""
    limits, draws, caps = found.plan.limits, found.draws(), found.plan.caps
    frontier = found.frontier(found.top)
    checks = [bite_finding(min(r.outcome.refusal for rows in found.rows.values() for r in rows))]
    answered = found.unattacked(Verdict.COMPLIED, "harmless")
    if answered is not None:
        checks.append(judge_finding(float(np.nanmean(answered))))
    if found.top > 1:
        checks += budget_findings(found.frontier(1), frontier, draws, limits, caps)
    else:
        for name in ("four times the budget is no worse", "the search has ended"):
            checks.append(_unchecked(name, "run with --budget 4"))
    gradient = found.of_attack(GRADIENT, found.top) if GRADIENT in found.plan.attacks else None
    if gradient is None:
        checks.append(_unchecked("directions are not hidden", "no gradient attack was made"))
    else:
        means = found.frontier(found.top, [GRADIENT])
        checks.append(hidden_finding(gradient, means, draws, limits, caps))
    moved = found.of_attack(TRANSFER, found.top) if TRANSFER in found.plan.attacks else None
    if moved is None:
        text = "no directions of another model were tried"
        checks.append(_unchecked("fresh directions beat transferred ones", text))
    else:
        checks.append(transfer_finding(moved, frontier, draws, caps))
    random = found.of_attack(RANDOM, found.top) if RANDOM in found.plan.attacks else None
    base = found.unattacked(Verdict.COMPLIED, "harmful")
    if random is None or base is None:
        text = "no random directions were tried"
        checks.append(_unchecked("random directions are at the floor", text))
    else:
        checks.append(floor_finding(random, base, draws, limits, caps))
    place, _ = deciding_place(found, found.cost(frontier))
    by_judge = [
        found.cells([[one.overall[place]] for one in found.choices(found.top)], judge=judge)[:, 0]
        for judge in found.judges
    ]
    checks.append(judges_finding(by_judge, found.judges, draws, limits))
    return checks


def comparison_numbers(
    model: Measured, against: Measured, findings: Sequence[Finding], drift: float | None
) -> dict[str, Any]:
    """The fields of `AuditRecord` that compare two models."""
    cost = compared(
        model.frontier(model.top),
        against.frontier(against.top),
        model.draws(),
        model.plan.caps,
    )
    more = {kind: _more_refusals(model, against, kind) for kind in ("harmless", "borderline")}
    judged = verdict(
        cost,
        model.plan.limits,
        borderline=more["borderline"],
        harmless=more["harmless"],
        drift=drift,
        findings=findings,
    )
    return {
        "ratio": plain(cost.ratio),
        "area": asdict(cost.area),
        "more_refusals": {kind: own and asdict(own) for kind, own in more.items()},
        "between": drift,
        "verdict": asdict(judged),
    }


def finding_rows(findings: Mapping[str, Sequence[Finding]]) -> list[dict[str, Any]]:
    """Findings as rows, each with the role of its model."""
    return [{"model": role, **asdict(finding)} for role, own in findings.items() for finding in own]


def _more_refusals(model: Measured, against: Measured, kind: str) -> Estimate | None:
    sides = [one.unattacked(Verdict.REFUSED, kind) for one in (model, against)]
    if sides[0] is None or sides[1] is None:
        return None
    return difference_of(sides[0], sides[1], model.draws(kind))


def _unchecked(name: str, why: str) -> Finding:
    return Finding(name, None, f"not checked: {why}")
