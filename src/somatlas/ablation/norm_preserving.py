"""Edits of weights that keep the length of what each input writes."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from somatlas.ablation.hooks import Ablation
from somatlas.ablation.projection import Projection
from somatlas.ablation.weights import OutputMap


@torch.no_grad()
def norm_preserving(
    placed: Iterable[tuple[int | None, Iterable[OutputMap]]], ablation: Ablation
) -> dict[int, Tensor]:
    """id of a parameter -> its edited values: each vector w that one input writes, or a bias,
    becomes P w |w| / |P w|.

    Nothing along fully ablated directions is left, and no write is weaker than it was (grimjim's
    norm-preserving abliteration). What an input scales by is no map of the part's output, so no
    hook does this. placed : maps with the block of each, None for the embeddings'.
    """
    found: dict[int, Tensor] = {}
    for block, maps in placed:
        own = ablation.at(block)
        if own is None:
            continue
        assert isinstance(own, Projection)
        for one in maps:
            axis = one.axis
            found[id(one.weight)] = _kept_long(one.vectors, own).movedim(-1, axis).contiguous()
            if one.bias is not None:
                found[id(one.bias)] = _kept_long(one.bias.detach(), own)
    return found


def _kept_long(vectors: Tensor, projection: Projection) -> Tensor:
    """P w with the length of w, for vectors (..., d); those that P takes whole become 0."""
    exact = vectors.float()
    mapped = projection.apply(exact)
    before, after = (x.norm(dim=-1, keepdim=True) for x in (exact, mapped))
    factor = torch.where(after > 1e-6 * before, before / after, 0.0)
    return (mapped * factor).to(vectors.dtype)
