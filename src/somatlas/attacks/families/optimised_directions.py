"""Directions found by gradient descent on the refusal's opening."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache, partial
from itertools import count

import torch
from torch import Tensor

from somatlas.ablation import Projection
from somatlas.attacks.attack import Ablated, Attack, Count, Counts, Rounds
from somatlas.attacks.gradient import STEPS, Goal, answer_openings, optimised_span
from somatlas.attacks.target import Target
from somatlas.measures.layer_rule import first_token_log_probabilities
from somatlas.models.generation import first_reply_tokens
from somatlas.prompts.prompt_set import spread, texts

HARMLESS = 32  # prompts whose distributions are kept, so that drift can be told
REPLY_TOKENS = 8  # of their replies
CHANGE = 4.0  # of the penalty on drift, from one restart to the next


class GradientAttack(Attack):
    """The span of k directions, optimised on the train prompts, from several starts
    (`somatlas.attacks.gradient`; refusal direction optimisation, arXiv 2502.17420).

    Restarts begin in turn at the mean difference of the most promising layer left (the other k - 1
    directions are random) and at random. After an attempt that half of the prompts were answered
    under, the next of that k pays four times as much for drift, after another a quarter: attempts
    gather where refusal just breaks. For ever; every attempt is optimised once and kept by the
    target, as a GPU's sums may differ in their last digits when they are made again.

    ks : how many directions, in the order in which each restart tries them. steps : of descent, on
    `rows` prompts of either side each.
    """

    name = "gradient"
    title = "optimised directions"
    summary = "k directions found by gradient descent on the refusal's opening, drift penalised"

    def __init__(
        self,
        ks: Counts = (1, 3, 2, 4),
        steps: Count = STEPS,
        rows: Count = 8,
    ) -> None:
        self.ks = ks
        self.steps = steps
        self.rows = rows

    @property
    def most_directions(self) -> int:
        return max(self.ks)

    def rounds(self, target: Target) -> Rounds:
        layers = [score.layer for score in target.screened_layers()]
        goal = cache(partial(self._goal, target))  # not made where all that was asked for is kept
        weights = dict.fromkeys(self.ks, 1.0)
        for restart in count():
            layer = None if restart % 2 else layers[restart // 2 % len(layers)]
            begin = "random" if layer is None else f"layer {layer}"
            for k in self.ks:
                name = f"k {k}, restart {restart} from {begin}"
                start = _start(target, k, layer, f"{target.seed}:{restart}:{k}")
                found = target.kept(
                    f"gradient, {name}, drift {weights[k]}, {self.steps} steps of {self.rows}",
                    partial(self._optimised, goal, start, weights[k], name),
                )["directions"]
                about = {"start": begin, "restart": restart, "drift_weight": weights[k]}
                projection = Projection(found, "subspace")
                (outcome,) = yield [Ablated(self.name, name, k, about, projection)]
                weights[k] *= CHANGE if outcome.asr >= 0.5 else 1 / CHANGE

    def _optimised(
        self, goal: Callable[[], Goal], start: Tensor, weight: float, seed: str
    ) -> dict[str, Tensor]:
        found = optimised_span(goal(), start, weight, seed, self.steps, self.rows)
        return {"directions": found}

    def _goal(self, target: Target) -> Goal:
        lm, size = target.lm, target.batch_size
        harmless = texts(spread(target.train.harmless, HARMLESS))
        return Goal(
            lm,
            texts(target.train.harmful),
            answer_openings(
                first_token_log_probabilities(lm, harmless, size), target.refusal_tokens
            ),
            harmless,
            first_reply_tokens(lm, harmless, REPLY_TOKENS, size),
            self.rows,
        )


def _start(target: Target, k: int, layer: int | None, seed: str) -> Tensor:
    """(k, d) random unit directions, the first of them the mean difference of a layer if given."""
    generator = torch.Generator().manual_seed(random.Random(seed).getrandbits(63))
    drawn = torch.randn(k, target.lm.d_model, generator=generator)
    if layer is not None:
        drawn[0] = target.differences()[layer]
    return torch.nn.functional.normalize(drawn, dim=1)
