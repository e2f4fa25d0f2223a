"""A loss of prompts and its gradient, in batches that memory suffices for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

import torch
from torch import Tensor

from somatlas.models.batches import Batch, within_memory
from somatlas.models.language_model import LanguageModel

# Of a batch, on a model that computes nothing beforehand: a sum over its rows.
Loss = Callable[[LanguageModel, Batch], Tensor]


def descents(
    lm: LanguageModel,
    prompts: Sequence[str],
    suffixes: Sequence[Sequence[int]],
    batch_size: int,
    parameters: Sequence[Tensor],
    edit: Callable[[], AbstractContextManager[None]],
    loss: Loss,
    *,
    allow_unused: bool = False,
) -> list[tuple[float, list[Tensor]]]:
    """Of each batch of prompts with the token ids behind them: the loss under an edit, and its
    gradient by each parameter. allow_unused : zeros where it does not depend on one, else an error.

    What all prompts begin with is not computed beforehand: no gradient would come through it.
    """
    whole = replace(lm, shares_head=False)

    def of(batch: Batch) -> list[tuple[float, list[Tensor]]]:
        with torch.enable_grad(), edit():
            value = loss(whole, batch)
            found = torch.autograd.grad(value, list(parameters), allow_unused=allow_unused)
        gradients = [
            torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)
        ]
        return [(float(value.detach()), gradients)]

    return [
        part
        for batch in whole.batches(prompts, batch_size, suffixes=suffixes)
        for part in within_memory(batch, of)
    ]
