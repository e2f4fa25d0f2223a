"""What each condition does beside its replies: drift on harmless ones, and what leaks back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

from pydantic import model_validator

from somatlas.ablation import Projection
from somatlas.completions.completion import Completion
from somatlas.evaluation.conditions import title
from somatlas.evaluation.evaluation import check_conditions
from somatlas.measures.drift import MORE_REPLY_TOKENS, REPLY_TOKENS, Drift
from somatlas.measures.leak import leak
from somatlas.models.language_model import LanguageModel
from somatlas.prompts import Prompt
from somatlas.prompts.prompt_set import spread, texts
from somatlas.records import Record

_DRIFT_PROMPTS = 32  # harmless test prompts whose replies' KL is measured


class Effects(Record):
    """ablate.json: the conditions and their effects.

    ranks : those that MD ablates. conditions : name -> title, in the order of tables. kl, kl_32 :
    mean KL in nats a token over the first 16 and 32 tokens of the unchanged model's replies to
    harmless test prompts, of each condition; by_reply, of each reply; tokens, how many tokens that
    is in all; shorter, of how many replies there are fewer. leak : share of what is removed that a
    norm behind the write brings back.
    """

    file: ClassVar[str] = "ablate.json"

    ranks: list[int]
    conditions: dict[str, str]
    kl: dict[str, float]
    kl_by_reply: dict[str, list[float]]
    kl_tokens: int
    kl_shorter: int
    kl_32: dict[str, float]
    kl_32_by_reply: dict[str, list[float]]
    kl_32_tokens: int
    kl_32_shorter: int
    kl_replies: int
    leak: dict[str, float]

    @model_validator(mode="after")
    def _of_every_condition(self) -> Self:
        tables = ("kl", "kl_by_reply", "kl_32", "kl_32_by_reply", "leak")
        check_conditions(self.conditions, **{name: getattr(self, name) for name in tables})
        return self


@dataclass(frozen=True)
class KeptDrift:
    """What drift is measured on: harmless prompts, the unchanged model's replies, how many tokens
    of each count, and the system prompt they were made under, None for the model's own."""

    prompts: list[str]
    replies: list[str]
    tokens: int
    system: str | None = None

    @classmethod
    def of(
        cls, base: Sequence[Completion], tokens: int = REPLY_TOKENS, *, name_systems: bool = False
    ) -> Self:
        """Of the unchanged model's completions.

        Of several replies to a prompt the first counts, under the system prompt it was made with,
        where they are named.
        """
        own = [c for c in base if c.kind == "harmless"]
        own = [c for c in own if (c.system, c.sample) == (own[0].system, 0)]
        own = spread(own, _DRIFT_PROMPTS)
        system = own[0].system if name_systems and own else None
        return cls([c.prompt for c in own], [c.reply for c in own], tokens, system)

    def on(self, lm: LanguageModel, batch_size: int) -> Drift:
        """The same with a model at hand."""
        if self.system is not None:
            lm = replace(lm, system=self.system)
        return Drift(lm, self.prompts, self.replies, batch_size, self.tokens)


@dataclass(frozen=True)
class ConditionEffect:
    """What one condition does: KL of each reply over its first 16 and 32 tokens, and the leak.

    counts : tokens and shorter replies, for 16 and for 32 tokens. replies : how many there are.
    """

    first: list[float]
    more: list[float]
    leak: float
    counts: tuple[tuple[int, int], tuple[int, int]]
    replies: int


def condition_effect(
    lm: LanguageModel,
    projection: Projection | None,
    drift: Drift,
    prompts: Sequence[str],
    batch_size: int,
) -> ConditionEffect:
    """Measure one condition. drift : over 32 tokens. prompts : harmful ones, for the leak."""
    lengths = (REPLY_TOKENS, MORE_REPLY_TOKENS)
    kl: dict[int, list[float]] = {tokens: [] for tokens in lengths}
    back = 0.0
    if projection is not None:
        kl = drift.over_tokens(projection, *lengths)
        back = leak(lm, prompts, projection, batch_size)
    first, more = ((drift.n_tokens(tokens), drift.n_shorter(tokens)) for tokens in lengths)
    return ConditionEffect(
        kl[REPLY_TOKENS], kl[MORE_REPLY_TOKENS], back, (first, more), len(drift.prompts)
    )


def effects(
    lm: LanguageModel,
    projections: Mapping[str, Projection | None],
    drift: Drift,
    harmful: Sequence[Prompt],
    *,
    batch_size: int = 128,
) -> Effects:
    """Measure every condition. drift : over 32 tokens. harmful : test prompts that leaks are
    measured on."""
    prompts = texts(harmful)
    return effects_of(
        {
            name: condition_effect(lm, projection, drift, prompts, batch_size)
            for name, projection in projections.items()
        }
    )


def effects_of(found: Mapping[str, ConditionEffect], ranks: Sequence[int] = ()) -> Effects:
    """The record of what every condition does. ranks : that MD ablates."""
    first = {name: one.first for name, one in found.items()}
    more = {name: one.more for name, one in found.items()}
    alike = next(iter(found.values()))
    (tokens, shorter), (tokens_32, shorter_32) = alike.counts
    return Effects(
        ranks=list(ranks),
        conditions={name: title(name) for name in found},
        kl=_means(first),
        kl_by_reply=first,
        kl_tokens=tokens,
        kl_shorter=shorter,
        kl_32=_means(more),
        kl_32_by_reply=more,
        kl_32_tokens=tokens_32,
        kl_32_shorter=shorter_32,
        kl_replies=alike.replies,
        leak={name: one.leak for name, one in found.items()},
    )


def _means(by_reply: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {name: sum(values) / max(1, len(values)) for name, values in by_reply.items()}
