"""The first step of a batch that is decoded: its prompts read in parts of about one length.

Keys and values go where a batch padded on the left has them, with room behind them for the tokens
to come.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import DynamicLayer

from somatlas.ablation import RowProjections
from somatlas.models.batches import Batch, of_one_length, selected
from somatlas.models.language_model import LanguageModel


def prefilled(
    lm: LanguageModel, batch: Batch, cache: Cache, ablations: RowProjections | None, room: int
) -> tuple[Tensor, Cache]:
    """(R, vocabulary) logits of each row's first new token, and the keys and values of the batch,
    with room for so many tokens behind them.

    cache : the batch's, which holds its head. ablations : assigned to the batch's rows, now and
    afterwards.
    """
    if any(type(layer) is not DynamicLayer for layer in cache.layers):  # sliding windows hold less
        logits = lm.logits(batch.inputs, 1)[:, -1]
        return logits, _in_one(cache, [(slice(None), cache)], 0, len(batch.rows), room)
    head = batch.attention_mask.shape[1] - batch.input_ids.shape[1]
    lengths = batch.attention_mask[:, head:].sum(dim=1).tolist()
    which = () if ablations is None else ablations.which
    first, parts = [], []
    for rows in of_one_length(lengths):
        if ablations is not None:
            ablations.assign(which[rows])
        own = selected(cache, range(rows.start, rows.stop))
        first.append(lm.logits(_part_of(batch, own, rows, lengths[rows.start]).inputs, 1)[:, -1])
        parts.append((rows, own))
    if ablations is not None:
        ablations.assign(which)
    return torch.cat(first), _in_one(cache, parts, head, len(batch.rows), room)


def _part_of(batch: Batch, cache: Cache, rows: slice, width: int) -> Batch:
    """Some of a batch's rows, as wide as the longest of them."""
    head = batch.attention_mask.shape[1] - batch.input_ids.shape[1]
    mask = batch.attention_mask[rows]
    return replace(
        batch,
        rows=batch.rows[rows],
        input_ids=batch.input_ids[rows, -width:],
        attention_mask=torch.cat([mask[:, :head], mask[:, -width:]], dim=1),
        cache=cache,
    )


def _in_one(
    whole: Cache, parts: Sequence[tuple[slice, Cache]], head: int, rows: int, room: int
) -> Cache:
    """The keys and values of all parts, with room; layers that keep none, or a sliding window, stay
    as they are. whole : the cache that the parts were taken of. Parts are emptied."""
    one = copy.copy(whole)
    one.layers = list(whole.layers)
    for place, layer in enumerate(whole.layers):
        own = [(part, cache.layers[place]) for part, cache in parts]
        if type(layer) is DynamicLayer and own[0][1].get_seq_length():
            one.layers[place] = _RoomyLayer(own, head, rows, room)
            for _, part in own:
                part.keys = part.values = None
    return one


class _RoomyLayer(DynamicLayer):  # type: ignore[misc]  # transformers is not typed
    """A layer's keys and values with room behind them: a step writes where it belongs, where the
    library's own layer copies all that is there.

    parts : of its rows, each with `head` columns and then its own, which end where the longest's
    do.
    """

    def __init__(
        self, parts: Sequence[tuple[slice, DynamicLayer]], head: int, rows: int, room: int
    ) -> None:
        super().__init__()
        some = parts[0][1]
        self.dtype, self.device, self.is_initialized = some.keys.dtype, some.keys.device, True
        self.length = max(layer.get_seq_length() for _, layer in parts)
        keys = [(place, layer.keys) for place, layer in parts]
        values = [(place, layer.values) for place, layer in parts]
        self._buffers = [self._filled(own, head, rows, room) for own in (keys, values)]
        self._show()

    def _filled(
        self, parts: Sequence[tuple[slice, Tensor]], head: int, rows: int, room: int
    ) -> Tensor:
        _, heads, _, size = parts[0][1].shape
        buffer = parts[0][1].new_zeros(rows, heads, self.length + room, size)
        for place, states in parts:
            start = self.length - states.shape[2] + head
            buffer[place, :, :head] = states[:, :, :head]
            buffer[place, :, start : self.length] = states[:, :, head:]
        return buffer

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> Any:
        end = self.length + key_states.shape[-2]
        for buffer, new in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, self.length : end] = new
        self.length = end
        self._show()
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        self._buffers = [buffer[indices] for buffer in self._buffers]
        self._show()

    def _show(self) -> None:
        self.keys, self.values = (buffer[:, :, : self.length] for buffer in self._buffers)
