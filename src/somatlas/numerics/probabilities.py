"""Probabilities of tokens."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

LOWEST = -1e4  # log p of what cannot be: exp gives 0
_BLOCK = 8  # rows of a large vocabulary that a CPU's caches hold: whole, each step goes to memory


def log_probabilities(logits: Tensor) -> Tensor:
    """float32 log p of logits, over the last axis: finite also where a logit is -inf, as of tokens
    that a model masks, so that p log p is 0 there and no NaN."""
    return logits.float().log_softmax(dim=-1).clamp(min=LOWEST)


def divergence(base: Tensor, other: Tensor) -> Tensor:
    """(n,) KL(base || other) in nats; both (n, vocabulary) log p."""
    return _by_block(lambda p, q: (p.exp() * (p - q)).sum(dim=1), base, other)


def surprise(logits: Tensor, tokens: Tensor) -> Tensor:
    """(...) float32 -log p of tokens (...) in logits (..., vocabulary), on their device; finite
    also for a token that the model masks."""

    def losses(own: Tensor, targets: Tensor) -> Tensor:
        own = own.float()
        found = own.logsumexp(dim=1) - own.gather(1, targets[:, None])[:, 0]
        return found.clamp(max=-LOWEST)

    every = tokens.flatten().to(logits.device)
    return _by_block(losses, logits.flatten(0, -2), every).reshape(tokens.shape)


def _by_block(of: Callable[[Tensor, Tensor], Tensor], one: Tensor, other: Tensor) -> Tensor:
    """(n,) of two with n rows each."""
    if one.device.type != "cpu" or len(one) <= _BLOCK:
        return of(one, other)
    blocks = zip(torch.split(one, _BLOCK), torch.split(other, _BLOCK), strict=True)
    return torch.cat([of(*block) for block in blocks])
