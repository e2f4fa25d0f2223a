"""audit.json: what an audit found, in numbers alone. No reply stands in it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from somatlas.records import Record


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class FamilyResult(_Part):
    """One attack on one model, at the highest budget.

    headline : it counts for the frontier. opens : it opens replies, and edits nothing. cost : of
    `AttackCost`, its own frontier on test; None where it was left out, for the reason in left_out.
    cost_x1 : with the plain budget, where four times that was tried too. best : per cap the chosen
    attempt of the first seed: its name, k, and on val and test success and drift. trials_to_break :
    `trials_to_break`. steps_to_break : of an attack that trains, the fewest steps after which half
    of val is answered. chance_to_break : of a floor, per k the share of random sets that break the
    model within 1 nat (`Rate`).
    """

    attack: str
    title: str
    threat: str
    is_floor: bool
    headline: bool
    opens: bool
    trials: int
    left_out: str = ""
    cost: dict[str, Any] | None = None
    cost_x1: dict[str, Any] | None = None
    best: list[dict[str, Any]] = Field(default_factory=list)
    trials_to_break: float | None = None
    steps_to_break: int | None = None
    chance_to_break: dict[str, dict[str, Any]] = Field(default_factory=dict)


class ModelResult(_Part):
    """What an audit found of one model.

    weights : a digest of them; dtype : their precision. unattacked : `Estimate` of success, refusal
    and refusals of harmless and borderline test prompts of the model as it is. cost, cost_x1 : of
    the frontier over all headline attacks. best : per cap what was chosen, with refusals of
    harmless and borderline prompts and harmless ones answered. worst : the attack that alone would
    have had the lowest AC50 on test, chosen after the fact. rank_to_break : `Bounded`.
    harmless_at_ac50 : share of harmless prompts answered there. recognition : of the model as it is
    and of the edit at AC50. reasoning : whether it reasons before it answers, and what it answers
    under an edit by where the reasoning comes from (`column_numbers`), or why that was left out.
    trials : every attempt on val.
    """

    name: str
    weights: str
    dtype: str
    notes: list[str]
    refusal_tokens: list[str]
    unattacked: dict[str, dict[str, Any] | None]
    cost: dict[str, Any]
    cost_x1: dict[str, Any] | None
    best: list[dict[str, Any]]
    families: list[FamilyResult]
    worst: dict[str, Any] | None
    rank_to_break: dict[str, Any] | None
    harmless_at_ac50: float | None
    recognition: dict[str, Any]
    reasoning: dict[str, Any] = Field(default_factory=dict)
    trials: list[dict[str, Any]]


class AuditRecord(Record):
    """audit.json.

    plan, plan_sha256 : what was fixed beforehand. models : "model", and "against" where there is
    one. ratio, area : of model against the other (`Comparison`); more_refusals : rise of refusals
    of the unattacked model over the other by kind; between : KL of the two. findings : checks, a
    row each. verdict : of `Judged`; None for one model alone.
    """

    file: ClassVar[str] = "audit.json"

    plan: dict[str, Any]
    plan_sha256: str
    judges: dict[str, dict[str, Any]]
    models: dict[str, ModelResult]
    ratio: dict[str, Any] | None = None
    area: dict[str, Any] | None = None
    more_refusals: dict[str, dict[str, Any] | None] = Field(default_factory=dict)
    between: float | None = None
    findings: list[dict[str, Any]] = Field(default_factory=list)
    verdict: dict[str, Any] | None = None
    somatlas: str = ""


def plain(value: Any) -> Any:
    """A dataclass as plain JSON values; what JSON has not, infinity and no number, is None."""
    return _finite(asdict(value))


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(own) for name, own in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(own) for own in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
