"""A loaded model with its tokenizer: prompts in, batches of token ids out."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from somatlas.ablation import Ablation, RowProjections, ablated
from somatlas.arguments import check_kind
from somatlas.errors import InputError
from somatlas.models.batches import Batch, deal, within_memory
from somatlas.models.chat import ChatFormat, chat_token_ids
from somatlas.models.limits import Limits, limits_of
from somatlas.models.output_maps import is_tied
from somatlas.models.reasoning import (
    Marks,
    Parted,
    opens_reasoning,
    part_reasoning,
    reasoning_tokens,
)
from somatlas.models.structure import ResidualStructure, Site
from somatlas.numerics.probabilities import log_probabilities

MODEL = "a model that load_model made"  # what to give, for messages


def ended_at(ids: list[int], position: int) -> list[int]:
    """The ids up to a position, itself included; raises InputError where they have none such."""
    check_kind("position", position, int, "a whole number, counted as Python counts")
    if not -len(ids) <= position < len(ids):
        raise InputError(
            f"a formatted prompt has {len(ids)} tokens, so none at position {position}: choose a "
            "--token-position that every prompt has"
        )
    return ids[: position % len(ids) + 1]


@dataclass(frozen=True)
class LanguageModel:
    """A decoder-only chat model, ready for hooks; made by `load_model`.

    name : how a user names it, and its folder among the runs. system : system prompt put before
    every prompt, or None for what the chat template does by itself. site : whether an ablation
    projects what a part writes (the paper's) or what is left of it after the norm that follows in
    some architectures. edit_head : whether an output head that shares the embedding's matrix is
    edited with it, as the paper's code does. shares_head : whether what all prompts begin with may
    be computed once and its keys and values reused, pads : whether rows of unequal length may share
    a batch; `load_model` tries both. thinking : whether the model is told to reason before it
    answers, or None for what its template does by itself. chat : how it takes a prompt;
    `load_model` tries it (None: by the tokenizer's own template). folder : of the checkpoint's
    files, or None where it has none of its own. unread : names of tensors there that nothing reads.
    notes : what is odd about it, a sentence each. marks : what its template puts around reasoning,
    or None. skip : token ids that end its reasoning before it begins, empty where it does not
    reason: behind them refusal is looked for.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    structure: ResidualStructure
    name: str
    system: str | None = None
    site: Site = "projection"
    edit_head: bool = False
    shares_head: bool = False
    pads: bool = True
    thinking: bool | None = None
    chat: ChatFormat | None = None
    folder: Path | None = None
    unread: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    marks: Marks | None = None
    skip: tuple[int, ...] = ()

    @cached_property
    def limits(self) -> Limits:
        """Which token ids and how many tokens it can take in, and how many beside shorter rows."""
        return limits_of(self.model)

    @property
    def n_layers(self) -> int:
        """L, the number of decoder blocks."""
        return len(self.structure.blocks)

    @property
    def d_model(self) -> int:
        """d, the length of a residual-stream vector."""
        return int(self.model.config.get_text_config().hidden_size)

    @property
    def pad_token_id(self) -> int:
        """What fills the left of short rows; masked, so any valid token will do."""
        own = (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id, 0)
        rows = self.limits.vocabulary  # a token that was added for padding may have none
        return next(int(token) for token in own if token is not None and token < rows)

    def ablate(self, ablation: Ablation | None) -> AbstractContextManager[None]:
        """While active, everything written to the residual stream is projected (None: nothing)."""
        if ablation is not None and ablation.d_model != self.d_model:
            raise InputError(
                f"the directions have {ablation.d_model} values, "
                f"{self.name} has d_model {self.d_model}: they belong to another model"
            )
        head = (
            self.model.get_output_embeddings() if self.edit_head and is_tied(self.model) else None
        )
        return ablated(self.structure.sites(self.site), ablation, head)

    def text_ids(self, text: str) -> list[int]:
        """Token ids of a text alone, outside the chat format."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def token_ids(self, prompt: str) -> list[int]:
        """The chat-formatted prompt, generation prompt included, as token ids."""
        return chat_token_ids(self.tokenizer, prompt, self.system, self.thinking, self.chat)

    def opens_reasoning(self, prompt: str) -> bool:
        """Whether the chat template ends in a block of reasoning that the reply goes on with."""
        return opens_reasoning(str(self.tokenizer.decode(self.token_ids(prompt))), self.marks)

    def part_reasoning(self, reply: str, *, opened: bool) -> Parted:
        """A reply's reasoning and answer, by the template's own marks and those that are known."""
        return part_reasoning(reply, opened=opened, own=self.marks)

    def reply_texts(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """Replies as text, special tokens left out but for those that mark reasoning."""
        left_out = self._left_out
        kept = [[token for token in row if token not in left_out] for row in rows]
        return list(self.tokenizer.batch_decode(kept, skip_special_tokens=False))

    @cached_property
    def _left_out(self) -> frozenset[int]:
        added = self.tokenizer.added_tokens_decoder
        special = {i: str(token) for i, token in added.items() if token.special}
        ids = self.tokenizer.all_special_ids
        special |= dict(zip(ids, self.tokenizer.convert_ids_to_tokens(ids), strict=True))
        marks = reasoning_tokens(special.values(), self.marks)
        return frozenset(i for i, token in special.items() if token not in marks)

    def batches(
        self,
        prompts: Sequence[str],
        size: int,
        *,
        suffixes: Sequence[Sequence[int]] | None = None,
        position: int = -1,
        ablations: RowProjections | None = None,
        room: int = 0,
    ) -> Iterator[Batch]:
        """Length-sorted, left-padded batches of at most `size` rows, the longest prompts first.

        What all rows begin with is computed by this call, under the ablation in force: call it
        before placing hooks that read. suffixes : token ids appended to each prompt (replies to be
        scored), if given. position : the token that each prompt ends at, counted as Python counts:
        what follows has no part in what a decoder computes there. ablations, room : see
        `somatlas.models.batches.deal`; with ablations, row g * len(prompts) + i is prompt i under
        ablation g. Raises InputError for tokens that the model has no row for, in its embedding or
        in its table of positions.
        """
        rows = [ended_at(self.token_ids(prompt), position) for prompt in prompts]
        behind = suffixes if suffixes is not None else [()] * len(rows)
        whole = [[*row, *suffix] for row, suffix in zip(rows, behind, strict=True)]
        self.limits.check(self.name, whole, room)
        return deal(
            self.model,
            rows,
            size,
            pad=self.pad_token_id,
            share_head=self.shares_head,
            suffixes=suffixes,
            ablations=ablations,
            room=room,
            padded=self.limits.padded if self.pads else 0,
        )

    def logits(self, inputs: Mapping[str, Any], keep: int) -> Tensor:
        """(rows, keep, vocabulary) logits of one forward pass at the last `keep` positions.

        The output head is computed there alone, where the model's code knows how to: code that
        comes with a model (Qwen's first chat models) may lack the argument.
        """
        only = {"logits_to_keep": keep} if self._keeps_logits else {}
        logits: Tensor = self.model(**inputs, **only).logits
        return logits[:, -keep:]

    @cached_property
    def _keeps_logits(self) -> bool:
        return "logits_to_keep" in inspect.signature(self.model.forward).parameters

    @torch.no_grad()
    def next_token_log_probabilities(
        self, prompts: Sequence[str], batch_size: int, ablations: RowProjections | None = None
    ) -> Iterator[tuple[list[int], Tensor]]:
        """(rows, float32 log p (rows, vocabulary)) of the first reply token, batch by batch; of a
        model that reasons, of the first behind its reasoning, which is skipped. ablations : in
        force, a row for each of them and each prompt (see `batches`)."""

        def log_p(batch: Batch) -> list[Tensor]:
            return list(log_probabilities(self.logits(batch.inputs, 1)[:, -1]))

        suffixes = [self.skip] * len(prompts) if self.skip else None
        for batch in self.batches(prompts, batch_size, suffixes=suffixes, ablations=ablations):
            yield batch.rows, torch.stack(within_memory(batch, log_p))
