"""What an ablation costs in capability: measures of each unit under every condition.

A measure has one value a unit (a reply, a window of text, an example of a task) and condition, in
the same order of units, so that conditions are compared unit by unit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Annotated, Any, ClassVar, Self

import torch
from pydantic import model_validator

from somatlas.errors import InputError
from somatlas.judges.repetition import repetition
from somatlas.models.language_model import LanguageModel
from somatlas.numerics.probabilities import surprise
from somatlas.numerics.statistics import mean_interval, paired_difference
from somatlas.records import Form, Interval, Record, like

_WINDOW = 256  # tokens of a perplexity window


class _Condition(Interval):
    """All but the first have their difference from it."""

    difference: float | None = None
    d_low: float | None = None
    d_high: float | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        self.check_together("difference", "d_low", "d_high")
        return self


class _Summary(Form):
    name: str
    unit: str
    n: int
    conditions: dict[str, _Condition]


class Cost(Record):
    """cost.json: a summary of every measure (`Measure.summary`)."""

    file: ClassVar[str] = "cost.json"

    measures: Annotated[list[dict[str, Any]], like(list[_Summary])]


@dataclass(frozen=True)
class Measure:
    """values : condition -> one value a unit. unit : what a value is of."""

    name: str
    unit: str
    values: Mapping[str, Sequence[float]]

    def summary(self, seed: int) -> dict[str, Any]:
        """Mean of each condition, and its difference from the first with a 95 % interval."""
        base = next(iter(self.values.values()))
        conditions = {}
        for name, values in self.values.items():
            if not values:
                continue
            mean, low, high = mean_interval(values, seed)
            conditions[name] = {"mean": mean, "low": low, "high": high}
            if values is not base and base:
                gap, low, high = paired_difference(base, values, seed)
                conditions[name] |= {"difference": gap, "d_low": low, "d_high": high}
        return {
            "name": self.name,
            "unit": self.unit,
            "n": len(base),
            "conditions": conditions,
        }


@dataclass(frozen=True)
class Extent:
    """Of a reply: how many tokens it has, and the share of its 4-grams that repeat."""

    tokens: int
    repetition: float


def extents_of(lm: LanguageModel, replies: Sequence[str]) -> list[Extent]:
    """The extent of each reply."""
    rows = [lm.text_ids(reply) for reply in replies]
    return [Extent(len(ids), repetition(ids)) for ids in rows]


def reply_measures(extents: Mapping[str, Sequence[Sequence[Extent]]]) -> list[Measure]:
    """Tokens of a reply, and the share of its 4-grams that repeat: means over a prompt's replies.

    extents : of each condition, those of the replies to each prompt. A prompt is the unit, since
    the replies to one are no independent evidence.
    """

    def means(of: Callable[[Extent], float]) -> dict[str, list[float]]:
        return {c: [fmean(map(of, rows)) for rows in prompts] for c, prompts in extents.items()}

    return [
        Measure("reply length", "tokens", means(lambda one: one.tokens)),
        Measure("repetition", "share", means(lambda one: one.repetition)),
    ]


@torch.no_grad()
def window_losses(lm: LanguageModel, text: str) -> list[float]:
    """Mean -log p a token in nats of each window of 256 tokens, the model's BOS before each.

    A shorter rest counts only where it is all there is: windows have equal weight.
    Raises InputError where the text has fewer than 2 tokens.
    """
    ids = lm.text_ids(text)
    if len(ids) < 2:
        raise InputError("the perplexity text has fewer than 2 tokens")
    start = lm.tokenizer.bos_token_id
    head = [] if start is None else [int(start)]
    losses = []
    for place in range(0, max(1, len(ids) - _WINDOW + 1), _WINDOW):
        window = [*head, *ids[place : place + _WINDOW]]
        tokens = torch.tensor([window], device=lm.model.device)
        logits = lm.model(input_ids=tokens, use_cache=False).logits[0, :-1]
        losses.append(float(surprise(logits, tokens[0, 1:]).cpu().double().mean()))
    return losses


def perplexity(loss: float) -> float:
    """Of a mean -log p in nats."""
    return math.exp(min(loss, 700.0))
