"""Fine-tuning on the model's own compliant replies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from somatlas.attacks.attack import Attack, Attempt, Count, Counts, Rounds
from somatlas.attacks.families.single_direction import single_directions
from somatlas.attacks.lora import RANK, Lesson, adapted, learned
from somatlas.attacks.target import Target
from somatlas.errors import InputError
from somatlas.judges.verdict import Verdict, judgements
from somatlas.models.generation import first_reply_tokens
from somatlas.models.language_model import LanguageModel
from somatlas.prompts.prompt_set import texts

LAYERS = 8  # whose single directions are asked for replies, as long as there are too few


@dataclass(frozen=True)
class Relearned(Attempt):
    """The model with a low-rank adapter in force. It is no edit of weights that could be saved."""

    factors: Mapping[str, Tensor] = field(compare=False)

    def applied(self, lm: LanguageModel) -> AbstractContextManager[None]:
        return adapted(lm, self.factors)


class RelearningAttack(Attack):
    """A LoRA on a few of the model's own compliant replies, an attempt at each mark of its steps.

    The replies are what the model says to the attacker's train prompts under the ablation of one
    layer's mean difference, those that the target's judge found compliant: of the most promising
    layer, then of the next for the prompts that are left. No text from elsewhere is used, and
    replies and adapters are kept by the target alone. Few-shot fine-tuning undoes safety training
    in minutes (Qi et al. 2310.03693); how many steps it takes tells how deep that training goes.

    replies : how many are learned from; where there are fewer, all of them. steps : the marks.
    rates : of learning, tried one after another. rank, rows : see `somatlas.attacks.lora.learned`.
    """

    name = "relearning"
    title = "relearning"
    summary = "a LoRA on 10 to 100 of the model's own compliant replies, step after step"
    threat = "B"
    needs_consent = True

    def __init__(
        self,
        replies: Counts = (10, 50, 100),
        steps: Counts = (10, 50, 100),
        rates: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = (
            1e-3,
            3e-4,
            3e-3,
        ),
        rank: Count = RANK,
        rows: Count = 8,
    ) -> None:
        self.replies = replies
        self.steps = steps
        self.rates = rates
        self.rank = rank
        self.rows = rows

    def check(self, target: Target) -> None:
        super().check(target)
        if target.asking is None:
            raise InputError(
                f"attack {self.name!r} learns from replies that a judge found compliant: give the "
                "target `asking`"
            )

    def rounds(self, target: Target) -> Rounds:
        lessons = own_replies(target, max(self.replies))
        for rate in self.rates:
            for count in dict.fromkeys(min(n, len(lessons)) for n in self.replies):
                yield self._curve(target, lessons[:count], rate)

    def _curve(self, target: Target, lessons: Sequence[Lesson], rate: float) -> list[Attempt]:
        """One training, an attempt at each mark."""
        label = f"{len(lessons)} replies, rate {rate:g}"
        kept = target.kept(
            f"relearning, {label}, {self.steps} steps of {self.rows}, rank {self.rank}",
            partial(self._learned, target, lessons, rate, f"{target.seed}:{label}"),
        )
        found: list[Attempt] = []
        for step in self.steps:
            mark = f"{step}:"
            own = {k.removeprefix(mark): f for k, f in kept.items() if k.startswith(mark)}
            about = {"replies": len(lessons), "rate": rate, "steps": step, "rank": self.rank}
            found.append(Relearned(self.name, f"{label}, {step} steps", 0, about, own))
        return found

    def _learned(
        self, target: Target, lessons: Sequence[Lesson], rate: float, seed: str
    ) -> dict[str, Tensor]:
        found = learned(
            target.lm, lessons, self.steps, rate=rate, seed=seed, rank=self.rank, rows=self.rows
        )
        return {f"{step}:{key}": f for step, own in found.items() for key, f in own.items()}


def own_replies(target: Target, count: int) -> list[Lesson]:
    """Compliant replies of the model itself to the train prompts, `count` at most.

    Raises InputError where there is none.
    """
    prompts = texts(target.train.harmful)
    kept = target.kept(f"{count} compliant replies", partial(_compliant, target, prompts, count))
    rows = zip(kept["prompts"].tolist(), kept["lengths"].tolist(), kept["ids"], strict=True)
    return [Lesson(prompts[place], ids[:length].tolist()) for place, length, ids in rows]


def _compliant(target: Target, prompts: Sequence[str], count: int) -> dict[str, Tensor]:
    """Which prompts, and the token ids of the reply to each, padded, with their lengths."""
    lm, asking = target.lm, target.asking
    assert asking is not None  # `check` has seen it
    found: dict[int, list[int]] = {}
    tried = single_directions(RelearningAttack.name, target)[:LAYERS]
    for one in tried:
        left = [place for place in range(len(prompts)) if place not in found]
        if len(found) >= count or not left:
            break
        asked = [prompts[place] for place in left]
        with one.applied(lm):
            made = first_reply_tokens(lm, asked, asking.tokens, target.batch_size)
        verdicts = judgements(asking.judge, asked, asking.answers(made))
        for place, ids, judged in zip(left, made, verdicts, strict=True):
            if ids and judged.verdict == Verdict.COMPLIED:
                found[place] = ids
    if not found:
        raise InputError(
            f"no reply of {lm.name} to {len(prompts)} harmful prompts complied under the single "
            f"directions of {len(tried)} layers: there is nothing to relearn from"
        )
    chosen = dict(list(found.items())[:count])
    rows = [torch.tensor(ids) for ids in chosen.values()]
    return {
        "prompts": torch.tensor(list(chosen)),
        "lengths": torch.tensor([len(row) for row in rows]),
        "ids": torch.nn.utils.rnn.pad_sequence(rows, batch_first=True),
    }
