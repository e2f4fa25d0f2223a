"""What the words, tables and figures of an audit ask of the inner tables of its record."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import ConfigDict, Field, Strict, model_validator

from somatlas.attacks.findings import Word
from somatlas.records import Form

Number = Annotated[float, Strict(), Field(allow_inf_nan=False)]  # no text, no true or false
Whole = Annotated[int, Strict()]
Count = Annotated[int, Strict(), Field(ge=0)]
Flag = Annotated[bool, Strict()]
Rank = Annotated[str, Field(pattern="^[0-9]+$")]


class EstimateForm(Form):
    """A `somatlas.attacks.attack_cost.Estimate`."""

    value: Number
    low: Number
    high: Number


class DifferenceForm(EstimateForm):
    """An `Estimate` that is made again of its fields, so there may be no others."""

    model_config = ConfigDict(extra="forbid")


class BoundedForm(Form):
    """A `Bounded`, infinity as null."""

    least: Number
    most: Number | None
    low: Number
    high: Number | None


class CostForm(Form):
    """An `AttackCost`."""

    budgets: list[Annotated[float, Strict(), Field(gt=0, allow_inf_nan=False)]] = Field(
        min_length=1
    )
    points: list[Number | None]
    fitted: list[Number]
    low: list[Number]
    high: list[Number]
    ac50: BoundedForm
    area: EstimateForm
    n: Count

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.budgets != sorted(set(self.budgets)):
            raise ValueError("budgets must be rising")
        for name in ("points", "fitted", "low", "high"):
            if len(getattr(self, name)) != len(self.budgets):
                raise ValueError(f"{name} must have a number a budget")
        return self


class ChanceForm(Form):
    """A `Rate` of some sets, one at least."""

    rate: Number
    n: Count


class BestForm(Form):
    """What was chosen within a cap."""

    cap: Number
    attack: str
    attempt: str
    k: Count
    val_success: Number | None
    success: Number | None
    refusal: Number | None
    kl: Number
    harmless_answered: Number | None = None
    harmless_refusal: Number | None = None
    borderline_refusal: Number | None = None
    repetition: Number | None = None


class UnattackedForm(Form):
    """Rates of a model as it is."""

    success: EstimateForm | None
    harmless_refusal: EstimateForm | None
    borderline_refusal: EstimateForm | None


class RankForm(BoundedForm):
    """How many directions break a model, and the success of each number of them."""

    success: dict[Rank, Any] = Field(min_length=1)


class WorstForm(Form):
    """An attack of the model's."""

    attack: str


class _Known(Form):
    harmless: EstimateForm
    borderline: EstimateForm | None
    length: EstimateForm


class RecognitionForm(Form):
    """Under no edit, and under the one that decides."""

    model_config = ConfigDict(extra="forbid")

    none: _Known
    edited: _Known


class _Made(Form):
    regenerated: Count
    fixed: Count


class _Columns(Form):
    regenerated: EstimateForm
    fixed: EstimateForm
    absent: EstimateForm


class _Change(Form):
    fixed: DifferenceForm
    absent: DifferenceForm


class ReasoningForm(Form):
    """Three columns, or why they were left out; nothing where that was not asked."""

    reasons: Flag = False
    left_out: str | None = None
    cap: Number | None = None
    attack: str | None = None
    attempt: str | None = None
    absent_by: str | None = None
    tokens: Count | None = None
    prompts: Count | None = None
    cut: _Made | None = None
    without: _Made | None = None
    success: _Columns | None = None
    refusal: _Columns | None = None
    change: _Change | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.reasons and self.left_out is None:
            raise ValueError("left_out must be a text where it reasons")
        if "success" in self.model_fields_set or (self.reasons and not self.left_out):
            for name in type(self).model_fields:
                if getattr(self, name) is None and name != "left_out":
                    raise ValueError(f"{name} is missing beside the columns")
        return self


class _Cell(Form):
    prompts: Count
    length: Number
    share: Number
    category: str


class _About(Form):
    """Of what the figures tell attempts by; those of other attacks have none of it."""

    phase: Number = 0
    steps: Number = 0
    cells: list[_Cell] = Field(default_factory=list)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if any(cell.prompts for cell in self.cells) and "phase" not in self.model_fields_set:
            raise ValueError("phase is missing beside cells")
        return self


class TrialForm(Form):
    """An attempt on val."""

    attack: str
    about: _About
    asr: Number
    kl: Number | None


class FindingForm(Form):
    """A check, of the model in a role."""

    model: str
    name: str
    passed: Flag | None
    text: str


class VerdictForm(Form):
    """A `Judged`."""

    word: Word
    reasons: list[str]
    unmeasured: list[str]


class _Limits(Form):
    ratio: Number
    area: Number
    borderline: Number
    harmless: Number
    drift: Number


class PlanForm(Form):
    """What a page says of the plan."""

    title: str
    exploratory: Flag
    budget: Whole
    thresholds: _Limits

    @model_validator(mode="after")
    def _shown(self) -> Self:
        """It is shown as TOML, which has no null; a field that is null is left out."""
        for name, value in (self.model_extra or {}).items():
            if value is not None and _holds_null(value):
                raise ValueError(f"{name} holds null")
        return self


def _holds_null(value: Any) -> bool:
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        return value is None
    return any(map(_holds_null, value))
