"""Ablation by editing weights: every matrix whose outputs go to the residual stream becomes P W.

P W = W - A (B^T W): what an edit subtracts is a product of two thin factors. They are what undoes
it, in O(k d) memory a matrix, and what a LoRA adapter of rank k holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from somatlas.ablation.hooks import Ablation
from somatlas.ablation.projection import Projection
from somatlas.errors import InputError

_CHUNK_VALUES = 1 << 24  # of a matrix held in double precision at once: 128 MiB


@dataclass(frozen=True)
class OutputMap:
    """The last linear map of a part that writes to the residual stream.

    name : of the module in the model. weight : its matrix, or one a expert stacked. axis : the one
    of weight's axes that runs over d_model. bias : d_model on its last axis, or None.
    """

    name: str
    weight: Tensor
    axis: int
    bias: Tensor | None = None

    @property
    def vectors(self) -> Tensor:
        """A view of the weight, (..., d): its last axis is written to the residual stream."""
        return self.weight.detach().movedim(self.axis, -1)


@contextmanager
def edited_weights(maps: Iterable[OutputMap], projection: Projection) -> Iterator[None]:
    """While active, every map writes P y; afterwards the weights are as before, to rounding."""
    done: list[tuple[Tensor, list[Tensor]]] = []
    try:
        for one in maps:
            for tensor in (one.vectors, *([] if one.bias is None else [one.bias.detach()])):
                done.append((tensor, _subtract(tensor, projection)))
        yield
    finally:
        for tensor, coefficients in done:
            _add(tensor, coefficients, projection)


@contextmanager
def edited_places(
    placed: Iterable[tuple[int | None, Sequence[OutputMap]]], ablation: Ablation
) -> Iterator[None]:
    """`edited_weights` of each place by what the ablation has for it.

    Raises InputError where one matrix is at places that are to be edited differently.
    """
    edits: dict[int, tuple[OutputMap, Projection | None]] = {}
    for block, maps in placed:
        own = ablation.at(block)
        assert own is None or isinstance(own, Projection)
        for one in maps:
            if edits.setdefault(id(one.weight), (one, own))[1] is not own:
                raise InputError(
                    f"the weights of {one.name} write in several blocks: they cannot be edited "
                    "differently for each of them"
                )
    with ExitStack() as stack:
        for one, own in edits.values():
            if own is not None:
                stack.enter_context(edited_weights([one], own))
        yield


def low_rank_update(one: OutputMap, projection: Projection) -> tuple[Tensor, Tensor]:
    """The edit of a single matrix as (d, k) @ (k, n), both float32 on the CPU: -A and B^T W.

    n counts the matrix's inputs, or an embedding's tokens.
    """
    coefficients = [
        (part.to(B.dtype) @ B).float().cpu()
        for part in _chunks(one.vectors)
        for _, B in [_factors(part, projection)]
    ]
    return -projection.A.float(), torch.cat(coefficients).T.contiguous()


def _subtract(tensor: Tensor, projection: Projection) -> list[Tensor]:
    """Project the last axis of tensor in place; returns the coefficients that were removed."""
    removed = []
    for part in _chunks(tensor):
        A, B = _factors(part, projection)
        exact = part.to(A.dtype)
        coefficients = exact @ B
        part.copy_(exact - coefficients @ A.T)
        removed.append(coefficients.float())
    return removed


def _add(tensor: Tensor, coefficients: Sequence[Tensor], projection: Projection) -> None:
    for part, removed in zip(_chunks(tensor), coefficients, strict=True):
        A, _ = _factors(part, projection)
        part.copy_(part.to(A.dtype) + removed.to(A.dtype) @ A.T)


def _factors(tensor: Tensor, projection: Projection) -> tuple[Tensor, Tensor]:
    """A and B beside a tensor, in float64 where the device has it."""
    dtype = torch.float32 if tensor.device.type == "mps" else torch.float64
    return projection.factors(tensor.device, dtype)


def _chunks(tensor: Tensor) -> Iterator[Tensor]:
    """Views of tensor (..., d), at most two axes each, that together are the whole."""
    if tensor.ndim > 2:
        for part in tensor:
            yield from _chunks(part)
    elif tensor.ndim == 2:
        yield from torch.split(tensor, max(1, _CHUNK_VALUES // tensor.shape[1]))
    else:
        yield tensor
