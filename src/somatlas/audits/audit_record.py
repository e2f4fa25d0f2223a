"""audit.json: what an audit found, in numbers alone. No reply stands in it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from somatlas.attacks.attack import Threat
from somatlas.audits.audit_forms import (
    BestForm,
    BoundedForm,
    ChanceForm,
    CostForm,
    DifferenceForm,
    FindingForm,
    PlanForm,
    Rank,
    RankForm,
    ReasoningForm,
    RecognitionForm,
    TrialForm,
    UnattackedForm,
    VerdictForm,
    WorstForm,
)
from somatlas.records import Record, like


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
    threat: Threat
    is_floor: bool
    headline: bool
    opens: bool
    trials: int
    left_out: str = ""
    cost: Annotated[dict[str, Any] | None, like(CostForm | None)] = None
    cost_x1: dict[str, Any] | None = None
    best: list[dict[str, Any]] = Field(default_factory=list)
    trials_to_break: float | None = None
    steps_to_break: int | None = None
    chance_to_break: Annotated[dict[str, dict[str, Any]], like(dict[Rank, ChanceForm])] = Field(
        default_factory=dict
    )

    @model_validator(mode="after")
    def _chosen_within_each_cap(self) -> Self:
        if self.cost is not None:
            _check_best(self.best, self.cost)
        return self


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
    unattacked: Annotated[dict[str, dict[str, Any] | None], like(UnattackedForm)]
    cost: Annotated[dict[str, Any], like(CostForm)]
    cost_x1: Annotated[dict[str, Any] | None, like(CostForm | None)]
    best: Annotated[list[dict[str, Any]], like(list[BestForm])]
    families: list[FamilyResult]
    worst: Annotated[dict[str, Any] | None, like(WorstForm | None)]
    rank_to_break: Annotated[dict[str, Any] | None, like(RankForm | None)]
    harmless_at_ac50: float | None
    recognition: Annotated[dict[str, Any], like(RecognitionForm)]
    reasoning: Annotated[dict[str, Any], like(ReasoningForm)] = Field(default_factory=dict)
    trials: Annotated[list[dict[str, Any]], like(list[TrialForm])]

    @property
    def attacks(self) -> list[str]:
        """Names of the attacks."""
        return [one.attack for one in self.families]

    @model_validator(mode="after")
    def _of_one_plan(self) -> Self:
        _check_best(self.best, self.cost)
        for cost in (self.cost_x1, *(one.cost for one in self.families)):
            if cost is not None and cost["budgets"] != self.cost["budgets"]:
                raise ValueError("costs must have the same budgets")
        if len(set(self.attacks)) < len(self.attacks):
            raise ValueError("families must have each attack once")
        if self.worst is not None and self.worst["attack"] not in self.attacks:
            raise ValueError(f"worst: {self.worst['attack']!r} is none of the attacks")
        return self


class AuditRecord(Record):
    """audit.json.

    plan, plan_sha256 : what was fixed beforehand. models : "model", and "against" where there is
    one. ratio, area : of model against the other (`Comparison`); more_refusals : rise of refusals
    of the unattacked model over the other by kind; between : KL of the two. findings : checks, a
    row each. verdict : of `Judged`; None for one model alone.
    """

    file: ClassVar[str] = "audit.json"

    plan: Annotated[dict[str, Any], like(PlanForm)]
    plan_sha256: str
    judges: dict[str, dict[str, Any]]
    models: dict[str, ModelResult]
    ratio: Annotated[dict[str, Any] | None, like(BoundedForm | None)] = None
    area: Annotated[dict[str, Any] | None, like(DifferenceForm | None)] = None
    more_refusals: Annotated[
        dict[str, dict[str, Any] | None], like(dict[str, DifferenceForm | None])
    ] = Field(default_factory=dict)
    between: float | None = None
    findings: Annotated[list[dict[str, Any]], like(list[FindingForm])] = Field(default_factory=list)
    verdict: Annotated[dict[str, Any] | None, like(VerdictForm | None)] = None
    somatlas: str = ""

    @model_validator(mode="after")
    def _of_one_plan(self) -> Self:
        if "model" not in self.models or not set(self.models) <= {"model", "against"}:
            raise ValueError("models must be 'model', and 'against' where there is another")
        first = self.models["model"]
        for one in self.models.values():
            if one.attacks != first.attacks or one.cost["budgets"] != first.cost["budgets"]:
                raise ValueError("models must have the same attacks and budgets")
        for row in self.findings:
            if row["model"] not in self.models:
                raise ValueError(f"findings: {row['model']!r} is none of the models")
        return self


def _check_best(best: Sequence[Any], cost: Mapping[str, Any]) -> None:
    if len(best) != len(cost["budgets"]):
        raise ValueError("best must have a row a budget")


def plain(value: Any) -> Any:
    """A dataclass as plain JSON values; what JSON has not, infinity and no number, is None."""
    return _finite(asdict(value))


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(own) for name, own in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(own) for own in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
