"""The layer rule: refusal tokens, refusal score, KL, and which layer they choose.

Arditi et al. 2406.11717, as arXiv 2511.08379 adapts it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from somatlas.ablation import Ablation
from somatlas.errors import InputError
from somatlas.models.language_model import LanguageModel
from somatlas.numerics.probabilities import divergence
from somatlas.numerics.real_values import in_float64

MAX_KL = 0.1
LAYER_SHARE = 0.8  # only the first 80 % of the layers are candidates

# A token opens the reply to a prompt where it is the first one with at least this probability.
OPENS = 0.1
# A refusal token opens the replies to at least so many harmful prompts and this share of them: one
# that opens a single reply is a word of that request.
MIN_OPENED, MIN_OPENED_SHARE = 3, 0.05
MIN_RATIO = 5.0  # times its mean probability on harmless prompts


@dataclass(frozen=True)
class LayerScore:
    """What ablating layer's mean difference does: refusal score on harmful, KL on harmless.

    n : harmful prompts of a layer that its KL rules out: the first few; None for all.
    """

    layer: int
    refusal_score: float
    kl: float
    n: int | None = None


def first_token_log_probabilities(
    lm: LanguageModel, prompts: Sequence[str], batch_size: int, ablation: Ablation | None = None
) -> Tensor:
    """(n, vocabulary) float32 log p of the first reply token, optionally under an ablation."""
    parts: dict[int, Tensor] = {}
    with lm.ablate(ablation):
        for rows, log_p in lm.next_token_log_probabilities(prompts, batch_size):
            parts.update(zip(rows, log_p.cpu(), strict=True))
    return torch.stack([parts[i] for i in range(len(prompts))])


def find_refusal_tokens(
    harmful: Tensor,
    harmless: Tensor,
    categories: Sequence[str] = (),
    *,
    decode: Callable[[int], str] = str,
) -> list[int]:
    """Token ids that open a refusal, the likeliest first.

    harmful, harmless : (n, vocabulary) log p of the unchanged model's first reply token.
    categories : of the harmful prompts, where they are known; what opens replies in one category
    alone is that category's word. decode : a token's text, for the message.

    Raises InputError where no token qualifies, naming those that came nearest.
    """
    opens = harmful.exp() >= OPENS
    p, q = harmful.exp().mean(dim=0), harmless.exp().mean(dim=0)
    counts = opens.sum(dim=0)
    least = max(MIN_OPENED, math.ceil(MIN_OPENED_SHARE * len(harmful)))
    rare = p >= MIN_RATIO * q
    found = [
        token
        for token in ((counts >= least) & rare).nonzero().flatten().tolist()
        if len(set(categories)) < 2 or _spans_categories(opens[:, token], categories)
    ]
    if not found:
        near = (counts * rare).topk(min(5, len(counts)))
        named = [
            f"{decode(int(token))!r} {int(count)}"
            for count, token in zip(near.values, near.indices, strict=True)
            if count
        ]
        raise InputError(
            f"no token opens the replies to at least {least} of {len(harmful)} harmful prompts"
            f"{' of more than one category' if len(set(categories)) > 1 else ''} and is rare on "
            f"harmless ones (nearest, with the prompts they open: {', '.join(named) or 'none'}): "
            "the model does not seem to refuse, or in many wordings; give more prompts, or name "
            "the tokens with --refusal-tokens"
        )
    return sorted(found, key=lambda token: -float(p[token]))


def _spans_categories(opens: Tensor, categories: Sequence[str]) -> bool:
    return len({categories[i] for i in opens.nonzero().flatten().tolist()}) > 1


def refusal_scores(log_p: Tensor, refusal_tokens: Sequence[int], epsilon: float = 0.0) -> Tensor:
    """(n,) log-odds log(p + epsilon) - log(1 - p + epsilon) of the first reply token's refusal.

    p is summed over refusal_tokens; p and 1 - p keep float64 precision near 0 and 1. epsilon : the
    paper's code has 1e-8, which bounds a score at 18.4, so that no single prompt carries the mean;
    0 is exact.
    """
    is_refusal = torch.zeros(log_p.shape[1], dtype=torch.bool)
    is_refusal[list(refusal_tokens)] = True
    log_p = in_float64(log_p)
    refused = log_p[:, is_refusal].logsumexp(dim=1)
    other = log_p[:, ~is_refusal].logsumexp(dim=1)
    if epsilon:
        refused, other = ((log.exp() + epsilon).log() for log in (refused, other))
    return refused - other


def prompt_kl(base: Tensor, ablated: Tensor) -> Tensor:
    """(n,) KL(base || ablated) in nats; both (n, vocabulary) log p."""
    return in_float64(divergence(base, ablated))


def mean_kl(base: Tensor, ablated: Tensor) -> float:
    """Mean KL(base || ablated) in nats; both (n, vocabulary) log p."""
    return float(prompt_kl(base, ablated).mean())


def candidate_layers(n_layers: int) -> range:
    """The layers that selection looks at: the first 80 %."""
    return range(max(1, math.floor(LAYER_SHARE * n_layers)))


def rivals(kl: Mapping[int, float]) -> list[int]:
    """The layers that the rule compares by their refusal scores: those with KL < 0.1.

    kl : of every candidate. Where no layer has so low a KL: those whose KL is at most twice the
    least. The lowest score of all would be that of an ablation which breaks the model: what babbles
    does not open with a refusal either.
    """
    gentle = [layer for layer, value in kl.items() if value < MAX_KL]
    return gentle or [layer for layer, value in kl.items() if value <= 2 * min(kl.values())]


def best_layer(scores: Sequence[LayerScore]) -> tuple[int, bool]:
    """The layer of lowest refusal score among the `rivals`, and whether their KL is below 0.1."""
    compared = rivals({score.layer: score.kl for score in scores})
    best = min((s for s in scores if s.layer in compared), key=lambda s: s.refusal_score)
    return best.layer, best.kl < MAX_KL
