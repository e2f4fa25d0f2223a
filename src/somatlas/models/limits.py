"""What a model can take in: which token ids, how many tokens, and how many side by side."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PretrainedConfig, PreTrainedModel

from somatlas.errors import InputError

# What architectures call the number of positions they were trained with.
_POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx")
_TABLE = re.compile(
    r"(?:^|\.)(?:wpe|embed_positions|pos_emb\w*|positional_embeddings?|position_embeddings?)(?:\.|$)"
)
_OWN_TABLES = {"mpt"}  # its ALiBi is a tensor of max_seq_len, made in the forward pass


@dataclass(frozen=True)
class Limits:
    """vocabulary : rows of the embedding. positions : tokens of the longest text that the model
    was made for, or None. fixed : it can take in no more: it keeps a table of positions, or would
    stretch them by the longest text that it has met. padded : tokens of the longest row that may
    share a batch with shorter ones, see `padded_length`."""

    vocabulary: int
    positions: int | None = None
    fixed: bool = False
    padded: float = math.inf

    def check(self, name: str, rows: Sequence[Sequence[int]], room: int = 0) -> None:
        """Raise InputError for a token id or a length that the model has no row for.

        rows : token ids of prompts. room : tokens that are generated behind each.
        """
        highest = max((max(row, default=0) for row in rows), default=0)
        if highest >= self.vocabulary:
            raise InputError(
                f"the tokenizer of {name} gives token {highest}, and its embedding has "
                f"{self.vocabulary} rows: it belongs to another model, or the embedding was not "
                "resized when tokens were added"
            )
        if self.fixed and self.positions is not None and self.too_long(rows, room):
            longest = max(map(len, rows))
            replies = f" and {room} of its reply" if room else ""
            raise InputError(
                f"{name} has {self.positions} positions, too few for a prompt of {longest} tokens"
                f"{replies}: shorten it, or lower --search-tokens and --test-tokens"
            )

    def too_long(self, rows: Sequence[Sequence[int]], room: int = 0) -> int:
        """How many of the rows are longer, with their replies, than the model was made for."""
        if self.positions is None:
            return 0
        return sum(len(row) + room > self.positions for row in rows)


def limits_of(model: PreTrainedModel) -> Limits:
    """What a loaded model can take in."""
    config = model.config.get_text_config()
    given = [getattr(config, name, None) for name in _POSITIONS]
    positions = next((int(n) for n in given if isinstance(n, int) and n > 0), None)
    decoder = model.get_decoder()
    tables = [
        value.shape[0]
        for name, value in (*decoder.named_parameters(), *decoder.named_buffers())
        if value.ndim == 2 and _TABLE.search(name)
    ]
    return Limits(
        vocabulary=int(model.get_input_embeddings().weight.shape[0]),
        positions=min((n for n in (positions, *tables) if n is not None), default=None),
        fixed=bool(tables)
        or config.model_type in _OWN_TABLES
        or any("dynamic" in rope["rope_type"] for rope in _ropes(config)),
        padded=padded_length(config),
    )


def padded_length(config: PretrainedConfig) -> float:
    """Up to how many tokens, its reply included, a row may share a batch with shorter ones.

    What a trial at load cannot show, for a short prompt meets none of it:

    - Sparse attention keeps the `index_topk` tokens that score highest (DeepSeek-V3.2). Scores are
      sums of ReLUs, so that many may be zero, and which of equals are kept goes by their place in
      the row, which padding moves. Up to that many tokens, all are kept.
    - Where it keeps blocks of tokens (MiniMax-M3), these are counted from the row's beginning,
      padding included, and so they hold other tokens. In one block there is nothing to choose.
    - LongRoPE (Phi-3) takes other frequencies for the whole batch once one row is longer than the
      text it was first trained on.
    """
    sparse = (getattr(config, name, None) for name in ("index_topk", "index_block_size"))
    ropes = (rope for rope in _ropes(config) if rope["rope_type"] == "longrope")
    original = (rope.get("original_max_position_embeddings") for rope in ropes)
    return min((n for n in (*sparse, *original) if n), default=math.inf)


def _ropes(config: PretrainedConfig) -> Iterator[Mapping[str, Any]]:
    """How positions are rotated: once, or for each type of layer."""
    given = getattr(config, "rope_parameters", None) or {}
    for rope in (given, *given.values()):
        if isinstance(rope, Mapping) and "rope_type" in rope:
            yield rope
