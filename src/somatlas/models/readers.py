"""What reads the residual stream, and whether an ablation has acted on all that it reads.

A module reads the stream where its input follows a displacement of the stream one to one. The
first block's input is displaced by far more than any part writes: parts see the stream through
norms, so what they put out stays small, while every point of the stream moves along.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from somatlas.ablation import Projection, Sites, ablated
from somatlas.models.decoder import stream_input, stream_vectors

# Displacements over the size of the embeddings: some parts put out a hundred times as much.
_TIMES = (100.0, 1_000.0, 10_000.0)
_SPREAD = 0.1  # of a reader's values around their median, as a share of it
_LEAST = 1e-2  # share of the displacement that a reader still sees, where blocks are scaled down

Reader = tuple[int, str]


@torch.no_grad()
def stream_readers(
    decoder: nn.Module, blocks: Sequence[nn.Module], ids: Tensor, shape: tuple[int, int]
) -> list[Reader]:
    """Block (-1 for what is behind them) and name of every module whose input is the stream.

    What a norm puts out follows the displacement too, but is of one size whatever that is: so the
    stream is displaced several times, and the share must be the same for two that follow.
    """
    found = [_followed(decoder, blocks, ids, shape, times) for times in _TIMES]
    readers = {
        reader: None
        for small, large in pairwise(found)
        for reader, share in large.items()
        if abs(small.get(reader, 0.0) - share) < _SPREAD * share
    }
    return list(readers)


def _followed(
    decoder: nn.Module,
    blocks: Sequence[nn.Module],
    ids: Tensor,
    shape: tuple[int, int],
    times: float,
) -> dict[Reader, float]:
    """The share of a displacement that each module sees whose input follows it alike in all
    coordinates."""
    signs = torch.randint(2, shape, generator=torch.Generator().manual_seed(0)) * 2.0 - 1
    found: dict[Reader, float] = {}
    size = 0.0

    def displace(_module: nn.Module, args: Any, kwargs: Any) -> Any:
        nonlocal size
        stream = stream_input(args, kwargs)
        assert stream is not None  # `find_structure` has seen it
        size = times * float(stream.float().square().mean().sqrt())
        moved = stream + (size * signs).to(stream.device, stream.dtype).reshape(stream.shape)
        return ((moved, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": moved})

    def look(reader: Reader, vectors: Tensor) -> None:
        ratio = vectors.float().cpu() / (size * signs)
        middle = ratio.median()
        if middle > _LEAST and (ratio - middle).abs().median() < _SPREAD * middle:
            found[reader] = float(middle)

    handle = blocks[0].register_forward_pre_hook(displace, with_kwargs=True)
    try:
        with _watched(decoder, blocks, shape, look):
            decoder(input_ids=ids, use_cache=False)
    finally:
        handle.remove()
    return found


@torch.no_grad()
def unablated_readers(
    decoder: nn.Module,
    blocks: Sequence[nn.Module],
    sites: Sites,
    ids: Tensor,
    shape: tuple[int, int],
    tolerance: float,
) -> list[tuple[int, str, float]]:
    """The readers whose input has a share above tolerance along random directions that hooks at
    `sites` ablate, with that share: none where ablation is exact."""
    readers = set(stream_readers(decoder, blocks, ids, shape))
    vectors = torch.randn(2, shape[1], generator=torch.Generator().manual_seed(1))
    projection = Projection(vectors, "subspace")
    basis = torch.linalg.qr(projection.A)[0]
    found: list[tuple[int, str, float]] = []

    def look(reader: Reader, vectors: Tensor) -> None:
        if reader in readers:
            own = vectors.cpu().double()
            share = float((own @ basis).norm() / own.norm().clamp(min=1e-300))
            if not share <= tolerance:
                found.append((*reader, share))

    with ablated(sites, projection), _watched(decoder, blocks, shape, look):
        decoder(input_ids=ids, use_cache=False)
    return found


@contextmanager
def _watched(
    decoder: nn.Module,
    blocks: Sequence[nn.Module],
    shape: tuple[int, int],
    look: Callable[[Reader, Tensor], None],
) -> Iterator[None]:
    """Hooks that show the input of every module in and behind the blocks, before it runs."""
    inside = {
        module: (i, name)
        for i, block in enumerate(blocks)
        for name, module in block.named_modules()
    }
    entered = False

    def enter(*_: Any) -> None:
        nonlocal entered
        entered = True

    def show(reader: Reader) -> Any:
        def hook(_module: nn.Module, args: Any, kwargs: Any) -> None:
            vectors = stream_vectors(stream_input(args, kwargs), shape)
            if entered and vectors is not None:
                look(reader, vectors)

        return hook

    handles = [blocks[0].register_forward_pre_hook(enter)]
    for name, module in decoder.named_modules():
        if module is not decoder:
            reader = inside.get(module, (-1, name))
            handles.append(module.register_forward_pre_hook(show(reader), with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
