"""Probabilities of tokens."""

from __future__ import annotations

from torch import Tensor

LOWEST = -1e4  # log p of what cannot be: exp gives 0


def log_probabilities(logits: Tensor) -> Tensor:
    """float32 log p of logits, over the last axis: finite also where a logit is -inf, as of tokens
    that a model masks, so that p log p is 0 there and no NaN."""
    return logits.float().log_softmax(dim=-1).clamp(min=LOWEST)


def divergence(base: Tensor, other: Tensor) -> Tensor:
    """(n,) KL(base || other) in nats; both (n, vocabulary) log p."""
    return (base.exp() * (base - other)).sum(dim=1)
