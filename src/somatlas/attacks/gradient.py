"""Directions found by gradient descent: the opening of a refusal is made unlikely, at little drift.

The refusal direction optimisation of Wollschläger et al. (arXiv 2502.17420), for the span of k
directions at once, with two differences: what replies are to open with is read off the model's own
answers (there: replies of an ablated model), and nothing is added to harmless prompts, as an attack
has no need to induce refusals. Means see where representations differ; the gradient sees what the
reply depends on. So it finds a direction also where a defence hides it from means.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from somatlas.attacks.descent import Loss, descents
from somatlas.attacks.prompt_order import drawn
from somatlas.errors import InputError
from somatlas.models.batches import Batch
from somatlas.models.language_model import LanguageModel
from somatlas.numerics.probabilities import log_probabilities
from somatlas.numerics.real_values import in_float64

STEPS = 100
STEP = 0.1  # radians that a direction turns by in the first step at most
MOMENTUM = 0.9


class _Span:
    """y -> y - Q Q^T y at every place, differentiable in Q (d, k) of orthonormal columns."""

    def __init__(self, Q: Tensor) -> None:
        self.Q, self.d_model = Q, Q.shape[0]

    def at(self, block: int | None) -> _Span:
        return self

    def transposed(self) -> _Span:
        return self

    def apply(self, Y: Tensor) -> Tensor:
        dtype = torch.promote_types(Y.dtype, self.Q.dtype)
        Q, y = self.Q.to(Y.device, dtype), Y.to(dtype)
        with torch.autocast(Y.device.type, enabled=False):
            return (y - (y @ Q) @ Q.T).to(Y.dtype)


@dataclass(frozen=True)
class Goal:
    """What is optimised on a model: replies that open as answers do, and others as they are.

    harmful : prompts whose reply is to open with one of the tokens of `answers`. harmless :
    prompts, and replies : the token ids that the model's own reply to each begins with, along which
    its distribution of the next token is to stay. batch_size : rows of one forward and backward
    pass at most; where memory does not suffice for so many, fewer.
    """

    lm: LanguageModel
    harmful: Sequence[str]
    answers: Sequence[int]
    harmless: Sequence[str]
    replies: Sequence[Sequence[int]]
    batch_size: int = 8

    def refusal(self, Q: Tensor, rows: Sequence[int]) -> tuple[float, Tensor]:
        """The sum over harmful prompts of -log p of an answer's opening, and its gradient.

        Q : (d, k) float64 on the CPU, orthonormal columns; the gradient is of its form. Of the
        first token behind any reasoning; what follows an opening follows it whether the model means
        to refuse or not, so no later token counts.
        """
        tokens = torch.tensor(list(self.answers))

        def loss(whole: LanguageModel, batch: Batch) -> Tensor:
            log_p = log_probabilities(whole.logits(batch.inputs, 1)[:, -1])
            return -log_p[:, tokens.to(log_p.device)].logsumexp(dim=1).sum()

        prompts = [self.harmful[row] for row in rows]
        return self._descent(Q, prompts, [self.lm.skip] * len(prompts), loss)

    def drift(self, Q: Tensor, rows: Sequence[int]) -> tuple[float, Tensor]:
        """The sum over harmless prompts of KL(as it is || ablated), and its gradient.

        Of a prompt, in nats, the mean over the tokens of its reply and the one behind.
        """
        kept = self._base  # made before anything is ablated

        def loss(whole: LanguageModel, batch: Batch) -> Tensor:
            base = [kept[rows[row]] for row in batch.rows]
            log_p = log_probabilities(whole.logits(batch.inputs, max(map(len, base))))
            terms = []
            for own, under in zip(base, log_p, strict=True):
                p = own.to(under.device)
                terms.append((p.exp() * (p - under[-len(p) :])).sum(dim=-1).mean())
            return torch.stack(terms).sum()

        prompts = [self.harmless[row] for row in rows]
        return self._descent(Q, prompts, [self.replies[row] for row in rows], loss)

    def _descent(
        self,
        Q: Tensor,
        prompts: Sequence[str],
        suffixes: Sequence[Sequence[int]],
        loss: Loss,
    ) -> tuple[float, Tensor]:
        """A loss summed over prompts under the ablation of Q's span, with its gradient."""
        placed = Q.to(self.lm.model.device, torch.float32).requires_grad_()
        parts = descents(
            self.lm,
            prompts,
            suffixes,
            self.batch_size,
            [placed],
            lambda: self.lm.ablate(_Span(placed)),
            loss,
        )
        gradient = torch.stack([own.cpu().double() for _, (own,) in parts]).sum(dim=0)
        if not gradient.isfinite().all():
            raise InputError(
                f"no finite gradient comes through {self.lm.name} in {self.lm.model.dtype}: try "
                "another --dtype, or leave out the attack by gradient"
            )
        return sum(value for value, _ in parts), gradient

    @cached_property
    def _base(self) -> list[Tensor]:
        """(T + 1, vocabulary) float32 log p behind each harmless prompt and its T reply tokens."""
        found: dict[int, Tensor] = {}
        with torch.no_grad():
            whole = replace(self.lm, shares_head=False)  # as where gradients are taken
            for batch in whole.batches(self.harmless, self.batch_size, suffixes=self.replies):
                counts = [len(self.replies[row]) + 1 for row in batch.rows]
                log_p = log_probabilities(whole.logits(batch.inputs, max(counts))).cpu()
                found |= {r: p[-n:] for r, p, n in zip(batch.rows, log_p, counts, strict=True)}
        return [found[row] for row in range(len(found))]


def optimised_span(
    goal: Goal, start: Tensor, weight: float, seed: str, steps: int = STEPS, rows: int = 8
) -> Tensor:
    """(k, d) float32 orthonormal directions whose ablation keeps refusals from opening.

    Minimises the mean of `Goal.refusal` plus weight times that of `Goal.drift` over the span, each
    step on `rows` prompts of either side. Only the span counts, so a step is taken along what of
    the gradient lies outside of it: `STEP` radians for a slope of one nat a radian or more, fewer
    where it is less steep, and falling to 0 over the steps as a cosine.

    start : (k, d), linearly independent. weight : nats of refusal's opening that one nat of drift
    is worth. seed : decides the order of the prompts.

    Raises InputError where a gradient is not finite.
    """
    Q = _orthonormal(start.double().T)
    momentum = torch.zeros_like(Q)
    sides = [
        drawn(range(len(side)), rows, random.Random(f"{seed}:{name}"))
        for name, side in (("harmful", goal.harmful), ("harmless", goal.harmless))
    ]
    for step in range(steps):
        harmful, harmless = (next(side) for side in sides)
        gradient = goal.refusal(Q, harmful)[1] / len(harmful)
        if weight:
            gradient = gradient + weight * goal.drift(Q, harmless)[1] / len(harmless)
        momentum = MOMENTUM * momentum + gradient
        momentum = momentum - Q @ (Q.T @ momentum)
        rate = STEP * (1 + math.cos(math.pi * step / steps)) / 2
        slope = torch.linalg.vector_norm(momentum, dim=0)  # nats a radian
        Q = _orthonormal(Q - rate * momentum / slope.clamp(min=1.0))
    return Q.T.float().contiguous()


def answer_openings(log_p: Tensor, refusal_tokens: Sequence[int], share: float = 0.95) -> list[int]:
    """Token ids that open answers, the likeliest first: the fewest that have that share of the
    probability which the first reply token's mean over harmless prompts leaves beside refusals.

    log_p : (n, vocabulary) of the unchanged model's first reply token.
    """
    p = in_float64(log_p).exp().mean(dim=0)
    p[list(refusal_tokens)] = 0
    values, tokens = p.sort(descending=True)
    count = int((values.cumsum(dim=0) < share * values.sum()).sum()) + 1
    return list(tokens[:count].tolist())


def _orthonormal(columns: Tensor) -> Tensor:
    """Q of the QR decomposition whose R has a positive diagonal: near the columns where they are
    nearly orthonormal."""
    Q, R = torch.linalg.qr(columns)
    signed: Tensor = Q * R.diagonal().sign()
    return signed
