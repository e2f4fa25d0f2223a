"""An evaluation: the rates of every condition with their intervals, and how sure they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from somatlas.evaluation.evidence import evidence
from somatlas.evaluation.rates import answers_that_count, condition_rates
from somatlas.evaluation.verdicts import VerdictRow, by_condition
from somatlas.records import Form, Record, like

if TYPE_CHECKING:  # who reads an evaluation needs no torch
    from somatlas.evaluation.effects import Effects


class RateForm(Form):
    """A `somatlas.numerics.statistics.Rate`."""

    rate: float | None
    low: float | None
    high: float | None
    n: int

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if len({value is None for value in (self.rate, self.low, self.high)}) > 1:
            raise ValueError("rate, low and high must be numbers, or none of them")
        return self


class RatesForm(Form):
    """Of one condition: see `somatlas.evaluation.rates.condition_rates`."""

    refusal: RateForm
    asr: RateForm
    babble: RateForm
    off_topic: RateForm
    harmless_refusal: RateForm
    borderline_refusal: RateForm


class _Counted(Form):
    n: int
    repetition: float | None
    ended: float | None


class _Tested(RatesForm):
    kl: float
    kl_32: float
    counted: _Counted


class _Paired(Form):
    outcome: Literal["refusal", "asr"]
    first: str
    second: str
    difference: float
    low: float
    high: float
    p_holm: float


class _Resolvable(Form):
    n: int
    difference: float | None

    @model_validator(mode="after")
    def _of_prompts(self) -> Self:
        if self.n and self.difference is None:
            raise ValueError("difference must be a number, as there are prompts")
        return self


class _Agreement(Form):
    first: str
    second: str
    n: int
    kappa: float | None
    interval: tuple[float, float] | None


class _Limit(Form):
    limit: float
    kept: int


class _Search(Form):
    trials: int
    val_asr: float
    max_kl: _Limit | None
    selection_asr: float | None = None
    selection_n: int | None = None
    selection_optimism: float | None = None

    @model_validator(mode="after")
    def _whole_selection(self) -> Self:
        self.check_together("selection_asr", "selection_n", "selection_optimism")
        return self


class _Published(Form):
    ranks: list[int]
    asr: float
    otherwise: list[str] = Field(default_factory=list)


class Evaluation(Record):
    """evaluation.json.

    test : of each condition, by name, a rate (`rate`, `low`, `high`, `n`) a verdict, KL in nats a
    token over 16 and 32 tokens (`kl`, `kl_32`), and what the answers that count are like
    (`counted`). paired, resolvable, missing, agreement, by_judge, late, systems, reasoning_refused
    : see `somatlas.evaluation.evidence`. judge : what each judge is. leak, kl_replies, kl_tokens :
    see `Effects`. layer, ranks : what MD ablates, where it is of one layer's directions. search :
    what the search promised. published : figures of the recipe's source. seconds : of each stage.
    """

    file: ClassVar[str] = "evaluation.json"

    model: str
    layer: int | None
    ranks: list[int]
    seed: int
    seconds: dict[str, float]
    leak: dict[str, float]
    kl_replies: int
    kl_tokens: int
    search: Annotated[dict[str, Any] | None, like(_Search | None)]
    judge: Annotated[dict[str, Any], Field(min_length=1)]
    paired: Annotated[list[dict[str, Any]], like(list[_Paired])]
    resolvable: Annotated[dict[str, Any], like(_Resolvable)]
    missing: dict[str, int]
    agreement: Annotated[list[dict[str, Any]], like(list[_Agreement])]
    by_judge: Annotated[dict[str, Any], like(dict[str, dict[str, RatesForm]])]
    late: Annotated[dict[str, Any], like(dict[str, dict[str, RateForm]])]
    systems: Annotated[dict[str, Any], like(dict[str, dict[str, RatesForm]])]
    reasoning_refused: Annotated[dict[str, Any], like(dict[str, RateForm | None])]
    published: Annotated[dict[str, Any] | None, like(_Published | None)]
    conditions: dict[str, str]
    test: Annotated[dict[str, dict[str, Any]], like(dict[str, _Tested])]

    @model_validator(mode="after")
    def _of_every_condition(self) -> Self:
        check_conditions(self.conditions, test=self.test)
        return self


def check_conditions(conditions: Mapping[str, str], **tables: Mapping[str, Any]) -> None:
    """Raise ValueError where conditions lack base, or a table one of them."""
    if "base" not in conditions:
        raise ValueError("conditions must have base, the model as it is")
    for name, table in tables.items():
        if missing := set(conditions) - set(table):
            raise ValueError(f"{name} has nothing of condition {min(missing)!r}")


def summarised(
    rows: Sequence[VerdictRow],
    effects: Effects,
    judges: Mapping[str, Any],
    *,
    model: str,
    seed: int,
    layer: int | None = None,
    seconds: Mapping[str, float] | None = None,
    search: Mapping[str, Any] | None = None,
    published: Mapping[str, Any] | None = None,
) -> Evaluation:
    """The evaluation of verdicts and effects. judges : by name, what each is (`Judge.record`)."""
    sides = by_condition(rows)
    return Evaluation(
        model=model,
        layer=layer,
        ranks=effects.ranks,
        seed=seed,
        seconds=dict(seconds or {}),
        leak=effects.leak,
        kl_replies=effects.kl_replies,
        kl_tokens=effects.kl_tokens,
        search=None if search is None else dict(search),
        judge=dict(judges),
        **evidence(rows, seed),
        published=None if published is None else dict(published),
        conditions=effects.conditions,
        test={
            name: {
                **{outcome: asdict(rate) for outcome, rate in condition_rates(side).items()},
                "kl": effects.kl[name],
                "kl_32": effects.kl_32[name],
                "counted": answers_that_count(side),
            }
            for name, side in sides.items()
        },
    )
