"""What each condition does beside its replies: drift on harmless ones, and what leaks back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

from somatlas.ablation import Projection
from somatlas.completions.completion import Completion
from somatlas.evaluation.conditions import title
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


def harmless_drift(
    lm: LanguageModel,
    base: Sequence[Completion],
    *,
    batch_size: int,
    tokens: int = REPLY_TOKENS,
    name_systems: bool = False,
) -> Drift:
    """Drift on the first tokens of the unchanged model's own replies to harmless test prompts.

    base : its completions. Of several replies to a prompt the first counts, under the system
    prompt it was made with, where they are named.
    """
    own = [c for c in base if c.kind == "harmless"]
    own = [c for c in own if (c.system, c.sample) == (own[0].system, 0)]
    own = spread(own, _DRIFT_PROMPTS)
    if name_systems and own:
        lm = replace(lm, system=own[0].system)
    return Drift(lm, [c.prompt for c in own], [c.reply for c in own], batch_size, tokens)


def effects(
    lm: LanguageModel,
    projections: Mapping[str, Projection | None],
    drift: Drift,
    harmful: Sequence[Prompt],
    *,
    ranks: Sequence[int] = (),
    batch_size: int = 128,
) -> Effects:
    """Measure every condition. drift : over 32 tokens. harmful : test prompts that leaks are
    measured on."""
    nothing: dict[int, list[float]] = {REPLY_TOKENS: [], MORE_REPLY_TOKENS: []}
    by_reply = {
        name: nothing if p is None else drift.over_tokens(p, REPLY_TOKENS, MORE_REPLY_TOKENS)
        for name, p in projections.items()
    }
    first, more = (
        {name: values[tokens] for name, values in by_reply.items()}
        for tokens in (REPLY_TOKENS, MORE_REPLY_TOKENS)
    )
    prompts = texts(harmful)
    return Effects(
        ranks=list(ranks),
        conditions={name: title(name) for name in projections},
        kl=_means(first),
        kl_by_reply=first,
        kl_tokens=drift.n_tokens(REPLY_TOKENS),
        kl_shorter=drift.n_shorter(REPLY_TOKENS),
        kl_32=_means(more),
        kl_32_by_reply=more,
        kl_32_tokens=drift.n_tokens(MORE_REPLY_TOKENS),
        kl_32_shorter=drift.n_shorter(MORE_REPLY_TOKENS),
        kl_replies=len(drift.prompts),
        leak={
            name: 0.0 if p is None else leak(lm, prompts, p, batch_size)
            for name, p in projections.items()
        },
    )


def _means(by_reply: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {name: sum(values) / max(1, len(values)) for name, values in by_reply.items()}
