"""The first step of a batch that is decoded: its prompts read in parts of about one length.

Keys and values go where a batch padded on the left has them, with room behind them for the tokens
to come.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import DynamicLayer

from somatlas.ablation import RowProjections
from somatlas.models.batches import Batch, of_one_length
from somatlas.models.language_model import LanguageModel


def prefilled(
    lm: LanguageModel, batch: Batch, ablations: RowProjections | None, room: int
) -> tuple[Tensor, Cache]:
    """(R, vocabulary) logits of each row's first new token, and the keys and values of the batch,
    with room for so many tokens behind them.

    ablations : assigned to the batch's rows, now and afterwards.
    """
    assert batch.heads is not None  # who decodes on a cache has one
    lengths = batch.attention_mask[:, batch.head :].sum(dim=1).tolist()
    slides = any(type(layer) is not DynamicLayer for layer in batch.heads.layers)
    parts = [slice(0, len(lengths))] if slides else of_one_length(lengths)  # a window holds less
    first: list[Tensor] = []
    whole: _Whole | None = None
    for rows in parts:
        if ablations is not None:
            ablations.assign(batch.lanes[rows])
        part = _part_of(batch, rows, lengths[rows.start])
        first.append(lm.logits(part.inputs, 1)[:, -1])
        assert part.cache is not None
        if whole is None:
            whole = _Whole(part.cache, batch, room)
        whole.put(rows, part.cache, lengths[rows.start])
    if ablations is not None:
        ablations.assign(batch.lanes)
    assert whole is not None  # a batch has rows
    return torch.cat(first), whole.cache


def _part_of(batch: Batch, rows: slice, width: int) -> Batch:
    """Some of a batch's rows, as wide as the longest of them."""
    mask = batch.attention_mask[rows]
    return replace(
        batch,
        rows=batch.rows[rows],
        input_ids=batch.input_ids[rows, -width:],
        attention_mask=torch.cat([mask[:, : batch.head], mask[:, -width:]], dim=1),
        lanes=batch.lanes[rows],
    )


class _Whole:
    """The keys and values of a batch, whose parts are put in as they are made; layers that keep
    none, or a sliding window, are those of the last part."""

    def __init__(self, like: Cache, batch: Batch, room: int) -> None:
        self.cache, self.head = copy.copy(like), batch.head
        rows, columns = batch.attention_mask.shape
        self.cache.layers = [
            _RoomyLayer(layer, rows, columns, room)
            if type(layer) is DynamicLayer and layer.get_seq_length()
            else layer
            for layer in like.layers
        ]

    def put(self, rows: slice, part: Cache, width: int) -> None:
        """Some rows, of so many columns behind the head. The part is emptied."""
        for place, own in enumerate(part.layers):
            layer = self.cache.layers[place]
            if isinstance(layer, _RoomyLayer):
                layer.put(rows, own, self.head, width)
                own.keys = own.values = None
            else:
                self.cache.layers[place] = own


class _RoomyLayer(DynamicLayer):  # type: ignore[misc]  # transformers is not typed
    """A layer's keys and values with room behind them: a step writes where it belongs, where the
    library's own layer copies all that is there.

    like : a layer with keys and values of some of the rows. columns : of all rows.
    """

    def __init__(self, like: DynamicLayer, rows: int, columns: int, room: int) -> None:
        super().__init__()
        self.dtype, self.device, self.is_initialized = like.keys.dtype, like.keys.device, True
        self.length = columns
        self._buffers = [
            own.new_zeros(rows, own.shape[1], columns + room, own.shape[3])
            for own in (like.keys, like.values)
        ]
        self._show()

    def put(self, rows: slice, layer: DynamicLayer, head: int, width: int) -> None:
        """Rows of another layer: its first `head` columns, and its last, which end where all do."""
        for buffer, own in zip(self._buffers, (layer.keys, layer.values), strict=True):
            buffer[rows, :, :head] = own[:, :, :head]
            buffer[rows, :, self.length - width : self.length] = own[:, :, head:]

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> Any:
        end = self.length + key_states.shape[-2]
        for buffer, new in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, self.length : end] = new
        self.length = end
        self._show()
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        # In place: new ones, a little smaller every time, would leave holes that nothing fits into.
        self._buffers = [buffer[: len(indices)].copy_(buffer[indices]) for buffer in self._buffers]
        self._show()

    def _show(self) -> None:
        self.keys, self.values = (buffer[:, :, : self.length] for buffer in self._buffers)
