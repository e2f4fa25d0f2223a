"""Residual-stream vectors of prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from somatlas.arguments import check_whole, whole_numbers
from somatlas.errors import InputError
from somatlas.models.batches import Batch, within_memory
from somatlas.models.decoder import decoder_of
from somatlas.models.language_model import LanguageModel
from somatlas.progress import Advance, ignore


class _DeepestLayerError(Exception):
    """Raised by the highest block that is read: nothing above it is computed."""


@torch.no_grad()
def residual_stream(
    lm: LanguageModel,
    prompts: Sequence[str],
    layers: Sequence[int],
    *,
    batch_size: int,
    position: int = -1,
    suffixes: Sequence[Sequence[int]] | None = None,
    advance: Advance = ignore,
) -> Tensor:
    """(n, len(layers), d) float32, on the CPU: the residual stream at one token of each prompt.

    Layer l is the output of decoder block l, before any final norm. The token is the last of the
    chat-formatted prompt, or the one at `position`, counted as Python counts; with suffixes (token
    ids behind each prompt, such as a reply's first ones) the last of those. Hooks keep these
    vectors alone: no output head, no other position, no block above the highest layer asked.
    `advance` is told the number of prompts done.

    Raises InputError for a layer or position out of range, or NaN or infinite values.
    """
    layers = check_layers(lm.name, lm.n_layers, layers)
    check_whole("batch_size", batch_size, 1)
    vectors = torch.empty(len(prompts), len(layers), lm.d_model)
    rows: list[int] = []

    def reader(place: int, deepest: bool) -> Callable[[nn.Module, Any, Any], None]:
        def read(_module: nn.Module, _args: Any, output: Any) -> None:
            stream = output[0] if isinstance(output, tuple) else output
            vectors[rows, place] = stream[:, -1].float().cpu()
            if deepest:
                raise _DeepestLayerError

        return read

    def forward(batch: Batch) -> list[int]:
        rows[:] = batch.rows
        with suppress(_DeepestLayerError):
            decoder_of(lm.model)(**batch.inputs)
        return batch.rows

    batches = lm.batches(prompts, batch_size, position=position, suffixes=suffixes)
    handles = [
        lm.structure.blocks[layer].register_forward_hook(reader(place, layer == max(layers)))
        for place, layer in enumerate(layers)
    ]
    try:
        for batch in batches:
            within_memory(batch, forward)
            advance(len(batch.rows))
    finally:
        for handle in handles:
            handle.remove()
    check_finite(vectors, layers)
    return vectors


def check_layers(name: str, n_layers: int, layers: Sequence[int]) -> tuple[int, ...]:
    """The layers as a tuple; raises InputError where there is none, one twice, or one that is not
    of the n_layers of the model so named."""
    layers = whole_numbers("layers", layers, f"[0, {n_layers - 1}]")
    if not layers or len(set(layers)) < len(layers):
        raise InputError(f"layers must be different ones, and one at least, not {list(layers)}")
    for layer in layers:
        if not 0 <= layer < n_layers:
            raise InputError(
                f"layer {layer} is out of range: {name} has layers 0 to {n_layers - 1}"
            )
    return layers


def check_finite(vectors: Tensor, layers: Sequence[int]) -> None:
    """Raise InputError naming the first layer of vectors (n, L, d) with NaN or infinite values."""
    finite = vectors.isfinite().all(dim=-1)
    for place, layer in enumerate(layers):
        if bad := int((~finite[:, place]).sum()):
            raise InputError(
                f"{bad} of {len(vectors)} representations at layer {layer} hold NaN or infinite "
                "values: try --dtype float32 or bfloat16"
            )
