"""Layer selection: where to cut (Arditi et al. 2406.11717, as arXiv 2511.08379 adapts it)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from somatlas.errors import InputError
from somatlas.interventions import Projection
from somatlas.models.language_model import LanguageModel

MAX_KL = 0.1
LAYER_SHARE = 0.8  # only the first 80 % of the layers are candidates

# A token is a refusal token where harmful prompts give it at least this mean probability, and
# this many times what harmless prompts give it.
MIN_PROBABILITY = 0.005
MIN_RATIO = 5.0


@dataclass(frozen=True)
class LayerScore:
    """What ablating layer's mean difference does: refusal score on harmful, KL on harmless."""

    layer: int
    refusal_score: float
    kl: float


def first_token_log_probabilities(
    lm: LanguageModel, prompts: Sequence[str], batch_size: int, projection: Projection | None = None
) -> Tensor:
    """(n, vocabulary) float32 log p of the first reply token, optionally under an ablation."""
    parts: dict[int, Tensor] = {}
    with lm.ablate(projection):
        for rows, log_p in lm.next_token_log_probabilities(prompts, batch_size):
            parts.update(zip(rows, log_p.cpu(), strict=True))
    return torch.stack([parts[i] for i in range(len(prompts))])


def find_refusal_tokens(harmful: Tensor, harmless: Tensor) -> list[int]:
    """Token ids that open a refusal, the likeliest first.

    harmful, harmless : (n, vocabulary) log p of the unchanged model's first reply token.
    Raises InputError where no token sets harmful prompts apart: the model does not refuse.
    """
    p, q = harmful.exp().mean(dim=0), harmless.exp().mean(dim=0)
    found = ((p >= MIN_PROBABILITY) & (p >= MIN_RATIO * q)).nonzero().flatten()
    if not len(found):
        raise InputError(
            "no token opens the replies to harmful prompts more than those to harmless ones: the "
            "model does not seem to refuse; give --refusal-tokens to go on all the same"
        )
    return [int(t) for t in found[p[found].argsort(descending=True)]]


def refusal_scores(log_p: Tensor, refusal_tokens: Sequence[int]) -> Tensor:
    """(n,) log-odds log p(refusal) - log(1 - p(refusal)) of the first reply token.

    p(refusal) is summed over refusal_tokens; both terms keep float64 precision near 0 and 1.
    """
    is_refusal = torch.zeros(log_p.shape[1], dtype=torch.bool)
    is_refusal[list(refusal_tokens)] = True
    log_p = log_p.double()
    return log_p[:, is_refusal].logsumexp(dim=1) - log_p[:, ~is_refusal].logsumexp(dim=1)


def mean_kl(base: Tensor, ablated: Tensor) -> float:
    """Mean KL(base || ablated) in nats; both (n, vocabulary) log p."""
    return float((base.exp() * (base - ablated)).sum(dim=1).double().mean())


def candidate_layers(n_layers: int) -> range:
    """The layers that selection looks at: the first 80 %."""
    return range(max(1, math.floor(LAYER_SHARE * n_layers)))


def score_layer(
    lm: LanguageModel,
    layer: int,
    direction: Tensor,
    harmful: Sequence[str],
    harmless: Sequence[str],
    *,
    refusal_tokens: Sequence[int],
    base_harmless: Tensor,
    batch_size: int,
) -> LayerScore:
    """Ablate `direction`, the layer's mean difference (d,), and score the layer.

    base_harmless : (n, vocabulary) log p of the unchanged model on the harmless prompts.
    """
    projection = Projection(direction[None])
    log_p = first_token_log_probabilities(lm, [*harmful, *harmless], batch_size, projection)
    score = float(refusal_scores(log_p[: len(harmful)], refusal_tokens).mean())
    return LayerScore(layer, score, mean_kl(base_harmless, log_p[len(harmful) :]))


def choose_layer(scores: Sequence[LayerScore]) -> tuple[int, bool]:
    """The layer of lowest refusal score among those with KL < 0.1, and True.

    Where no layer has so low a KL: the lowest score of all, and False.
    """
    gentle = [s for s in scores if s.kl < MAX_KL]
    return min(gentle or scores, key=lambda s: s.refusal_score).layer, bool(gentle)
