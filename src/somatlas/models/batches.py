"""Batches of token ids, with what all rows begin with computed once.

Chat templates begin every prompt alike (a system prompt, the first marks). The keys and values of
that head depend on nothing behind it: they are computed for one row and shared by all. A batch
holds the rest, padded on the left, so that the last column is each row's last token.
"""

from __future__ import annotations

import copy
import inspect
import itertools
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, TypeVar

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from somatlas.ablation import RowProjections
from somatlas.models.decoder import decoder_of

Result = TypeVar("Result")

_EXACT_TOLERANCE, _HALF_TOLERANCE = 1e-4, 5e-2
_CACHE_BYTES = 2**30  # of a batch's keys and values on a CPU, or a quarter of the weights
_FEWEST_ROWS = 16  # with fewer a product takes longer a row
_PADDED = 0.1  # of the columns at most are padding, in rows of about one length


@dataclass(frozen=True)
class Batch:
    """Rows of one forward pass.

    rows : which rows they are, as the caller counts. input_ids : (R, T), padded on the left, the
    head left out. attention_mask : (R, head + T). heads : keys and values of the head, a row a
    lane; None where the model keeps none that can be shared. lanes : of each row. cache_argument :
    what the model calls its cache. halves : the batch anew in parts of half its size, where memory
    did not suffice for it; the batches dealt after it are no larger.
    """

    rows: list[int]
    input_ids: Tensor
    attention_mask: Tensor
    heads: Cache | None
    lanes: Sequence[int]
    cache_argument: str
    halves: Callable[[], Iterator[Batch]] | None = None

    @cached_property
    def cache(self) -> Cache | None:
        """Keys and values of the head for R rows, to which a forward pass adds the rest."""
        return None if self.heads is None else selected(self.heads, self.lanes)

    @property
    def head(self) -> int:
        """How many columns the head has."""
        return self.attention_mask.shape[1] - self.input_ids.shape[1]

    @property
    def inputs(self) -> dict[str, Any]:
        """Arguments of one forward pass: positions count real tokens only. It fills the cache."""
        positions = (self.attention_mask.cumsum(dim=1) - 1).clamp(min=0)
        return {
            "input_ids": self.input_ids,
            "attention_mask": self.attention_mask,
            "position_ids": positions[:, -self.input_ids.shape[1] :],
            self.cache_argument: self.cache,
            "use_cache": self.cache is not None,
        }


def cache_argument(model: PreTrainedModel) -> str:
    """What the model's forward pass calls its keys and values: transformers 5.24 renamed it."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"


def common_head(rows: Sequence[Sequence[int]]) -> list[int]:
    """The token ids that all rows begin with, each row's last one left out."""
    columns = zip(*(row[:-1] for row in rows), strict=False)
    return [ids[0] for ids in itertools.takewhile(lambda ids: len(set(ids)) == 1, columns)]


def deal(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    size: int,
    *,
    pad: int,
    share_head: bool,
    suffixes: Sequence[Sequence[int]] | None = None,
    ablations: RowProjections | None = None,
    room: int = 0,
    padded: float = math.inf,
) -> Iterator[Batch]:
    """Batches of at most `size` rows, the longest first; the head is computed before the first.

    Where nothing is generated behind them, rows of a batch are of about one length: padding costs
    as much as tokens do, and beside the longest of 128 prompts the others are a fifth longer than
    they are. Batches that are decoded are large all the same, and read in parts
    (`somatlas.models.first_step`).

    On a CPU of fewer, down to 16, where their keys and values would take more than 1 GB and than a
    quarter of the weights: nothing halves a batch there that is too large. Less is dear: a batch
    whose rows end early goes on with few of them, and 256 MB made a round of trials of the embedded
    default 1.4 times as long (two cores).

    prompts, suffixes : token ids, and those put behind each. ablations : one row for each of them
    and each prompt: row g * len(prompts) + i is prompt i under ablation g, and a batch's rows are
    assigned before it is yielded. room : tokens to be generated behind each row. padded : rows that
    are longer, with these, share a batch with rows of their own length alone.
    """
    ids = prompts
    if suffixes is not None:
        ids = [[*prompt, *suffix] for prompt, suffix in zip(prompts, suffixes, strict=True)]
    lanes = 1 if ablations is None else len(ablations)
    head: list[int] = []
    cache: Cache | None = None
    longest = max(map(len, ids), default=0) + room
    if share_head and longest < _attention_window(model) and longest <= padded:
        head = common_head(prompts) if len(prompts) > 1 else []
        if ablations is not None:
            ablations.assign(range(lanes))
        cache = _filled_cache(model, [head] * lanes)
    order = sorted(range(lanes * len(ids)), key=lambda row: -len(ids[row % len(ids)]))

    largest = min(size, _rows_held(model, cache, longest, len(order)))

    def length(row: int) -> int:
        return len(ids[row % len(ids)])

    def batch_of(rows: list[int]) -> Batch:
        which = [row // len(ids) for row in rows]
        if ablations is not None:
            ablations.assign(which)
        tails = [ids[row % len(ids)][len(head) :] for row in rows]
        input_ids, mask = _padded(tails, pad, model.device)
        mask = torch.cat([mask.new_ones(len(rows), len(head)), mask], dim=1)
        name = cache_argument(model)
        return Batch(rows, input_ids, mask, cache, which, name, partial(halves, rows))

    def in_parts(rows: list[int]) -> Iterator[Batch]:
        start = 0
        while start < len(rows):
            part = rows[start : start + largest]
            if length(part[0]) + room > padded:
                part = [row for row in part if length(row) == length(part[0])]
            elif not room:
                part = part[next(of_one_length([length(row) - len(head) for row in part]))]
            start += len(part)
            yield batch_of(part)

    def halves(rows: list[int]) -> Iterator[Batch]:
        nonlocal largest
        largest = min(largest, (len(rows) + 1) // 2)
        return in_parts(rows)

    return in_parts(order)


def of_one_length(lengths: Sequence[int]) -> Iterator[slice]:
    """Parts of rows that are of about one length, at least 16 rows each but for the last.

    lengths : the longest first.

    >>> list(of_one_length([20] * 20 + [10] * 3))
    [slice(0, 20, None), slice(20, 23, None)]
    """
    start = 0
    for row, length in enumerate(lengths):
        if row - start >= _FEWEST_ROWS and length < (1 - _PADDED) * lengths[start]:
            yield slice(start, row)
            start = row
    yield slice(start, len(lengths))


def within_memory(batch: Batch, work: Callable[[Batch], Sequence[Result]]) -> list[Result]:
    """What `work` gives for each row, in the batch's order.

    Where the device runs out of memory the batch is halved, and again, down to single rows; then
    the error is raised.
    """
    try:
        return list(work(batch))
    except RuntimeError as error:  # of which torch.OutOfMemoryError is one, and MPS's error
        if "out of memory" not in str(error) or len(batch.rows) == 1 or batch.halves is None:
            raise
        halves = batch.halves
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return [result for half in halves() for result in within_memory(half, work)]


@torch.no_grad()
def padding_is_exact(model: PreTrainedModel, ids: Sequence[Sequence[int]]) -> bool:
    """Whether padding on a row's left leaves its hidden state as it is.

    Tried, not assumed: some recurrent mixers (xLSTM, RecurrentGemma) read padding as they read
    tokens, whatever the mask says.
    """
    pad = ids[0][-1]  # masked, so any token will do
    decoder = decoder_of(model)
    (whole,) = deal(model, ids, len(ids), pad=pad, share_head=False)
    got = decoder(**whole.inputs).last_hidden_state[:, -1].float()
    for place, row in enumerate(whole.rows):
        (alone,) = deal(model, [ids[row]], 1, pad=pad, share_head=False)
        expected = decoder(**alone.inputs).last_hidden_state[0, -1].float()
        if (got[place] - expected).norm() > _tolerance(model) * expected.norm():
            return False
    return True


@torch.no_grad()
def head_cache_is_exact(model: PreTrainedModel, ids: Sequence[Sequence[int]]) -> bool:
    """Whether rows of unequal length give the same hidden states with their head computed once.

    Tried, not assumed: recurrent mixers, for one, keep no cache that can be shared so, and some
    architectures (MiniMax, xLSTM) refuse or break on any cache but one of their own class.
    """
    pad = ids[0][-1]  # masked, so any token will do
    decoder = decoder_of(model)
    (whole,) = deal(model, ids, len(ids), pad=pad, share_head=False)
    expected = decoder(**whole.inputs).last_hidden_state[:, -1].float()
    try:
        if not common_head(ids) or _filled_cache(model, [common_head(ids)]) is None:
            return False
        (parted,) = deal(model, ids, len(ids), pad=pad, share_head=True)
        got = decoder(**parted.inputs).last_hidden_state[:, -1].float()
    except Exception as error:  # each class of cache breaks in its own way
        if "out of memory" in str(error):
            raise
        return False
    return bool((got - expected).norm() <= _tolerance(model) * expected.norm())


def _tolerance(model: PreTrainedModel) -> float:
    exact = model.dtype in (torch.float32, torch.float64)
    return _EXACT_TOLERANCE if exact else _HALF_TOLERANCE


@torch.no_grad()
def _filled_cache(model: PreTrainedModel, heads: Sequence[Sequence[int]]) -> Cache | None:
    """The keys and values of equally long heads; None where they are not all that is kept."""
    cache = DynamicCache(config=model.config)
    if not heads[0]:
        return cache
    tokens = torch.tensor(heads, device=model.device)
    decoder_of(model)(input_ids=tokens, use_cache=True, **{cache_argument(model): cache})
    plain = all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in cache.layers)
    return cache if plain and cache.get_seq_length() == len(heads[0]) else None


def _rows_held(model: PreTrainedModel, cache: Cache | None, tokens: int, rows: int) -> int:
    """How many of the rows, of so many tokens each, share a batch by what the head's keys and
    values take: parts of about the same size."""
    if cache is None or model.device.type != "cpu" or not cache.get_seq_length():
        return sys.maxsize
    held = [x for layer in cache.layers for x in (layer.keys, layer.values)]
    token = sum(x.numel() / x.shape[0] * x.element_size() for x in held) / cache.get_seq_length()
    if rows * token * tokens <= _CACHE_BYTES:  # as nearly always: the weights need no counting
        return rows
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    room = max(_FEWEST_ROWS, int(max(_CACHE_BYTES, weights // 4) / (token * tokens)))
    return math.ceil(rows / math.ceil(rows / room))


def selected(cache: Cache, which: Sequence[int]) -> Cache:
    """A copy of the cache with a row for each item of which."""
    chosen = copy.copy(cache)
    chosen.layers = [copy.copy(layer) for layer in cache.layers]
    chosen.batch_select_indices(torch.tensor(which))
    return chosen


def _attention_window(model: PreTrainedModel) -> float:
    """How many tokens the narrowest attention sees: padding inside a row must not push any out."""
    layers = DynamicCache(config=model.config).layers
    widths = [x.sliding_window for x in layers if isinstance(x, DynamicSlidingWindowLayer)]
    config = model.config.get_text_config()
    if "local" in getattr(config, "attention_layers", ()):  # GPT-Neo, whose cache knows nothing
        widths.append(config.window_size)
    return min(widths, default=float("inf"))


def _padded(ids: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    width = max(map(len, ids))
    tokens = [[pad] * (width - len(row)) + list(row) for row in ids]
    mask = [[0] * (width - len(row)) + [1] * len(row) for row in ids]
    return torch.tensor(tokens, device=device), torch.tensor(mask, device=device)
