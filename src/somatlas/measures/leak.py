"""What comes back after an ablation where a norm follows the write.

Some architectures (Gemma 2 and 3, OLMo 2) pass what a part writes through a norm before it is
added. Projecting before the norm, as the paper does, takes the directions out of its input; its
per-channel gain puts some of them back into what is added. How much is measured, not assumed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from somatlas.ablation import Projection
from somatlas.models.decoder import decoder_of
from somatlas.models.language_model import LanguageModel


def leak(
    lm: LanguageModel, prompts: Sequence[str], projection: Projection, batch_size: int
) -> float:
    """The share of the directions' part in what norms add that is there under the ablation too.

    Norms' outputs at the prompts' last tokens, projected on the span of the directions, root mean
    square with the ablation over the same without it: 0 where no norm follows a write or the site
    is "residual".
    """
    norms = [write.norm for write in lm.structure.writes if write.norm is not None]
    if not norms or lm.site == "residual":
        return 0.0
    basis, _ = torch.linalg.qr(projection.A)
    before = _energy(lm, prompts, norms, basis, None, batch_size)
    after = _energy(lm, prompts, norms, basis, projection, batch_size)
    return math.sqrt(after / before)


@torch.no_grad()
def _energy(
    lm: LanguageModel,
    prompts: Sequence[str],
    norms: Sequence[nn.Module],
    basis: torch.Tensor,
    projection: Projection | None,
    batch_size: int,
) -> float:
    """Summed square of the norms' outputs along basis (d, k), at the last tokens."""
    total = 0.0

    def add(_module: nn.Module, _args: Any, output: torch.Tensor) -> None:
        nonlocal total
        total += float((output[:, -1].cpu().double() @ basis).square().sum())

    with lm.ablate(projection):
        batches = lm.batches(prompts, batch_size)
        handles = [norm.register_forward_hook(add) for norm in norms]
        try:
            for batch in batches:
                decoder_of(lm.model)(**batch.inputs)
        finally:
            for handle in handles:
                handle.remove()
    return total
