"""A loaded model with its tokenizer: prompts in, batches of token ids out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from somatlas.errors import InputError
from somatlas.interventions import Projection, ablated
from somatlas.models.output_maps import is_tied
from somatlas.models.structure import ResidualStructure, Site


def chat_token_ids(
    tokenizer: PreTrainedTokenizerBase, prompt: str, system: str | None = None
) -> list[int]:
    """The chat-formatted prompt, generation prompt included, as token ids.

    The template writes a BOS where the model wants one, so the tokenizer adds none.
    """
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": prompt})
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


@dataclass(frozen=True)
class LanguageModel:
    """A decoder-only chat model, ready for hooks; made by `load_model`.

    name : how a user names it, and its folder among the runs. system : system prompt put before
    every prompt, or None for what the chat template does by itself. site : whether an ablation
    projects what a part writes (the paper's) or what is left of it after the norm that follows in
    some architectures. edit_head : whether an output head that shares the embedding's matrix is
    edited with it, as the paper's code does.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    structure: ResidualStructure
    name: str
    system: str | None = None
    site: Site = "projection"
    edit_head: bool = False

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
        return next(int(token) for token in own if token is not None)

    def ablate(self, projection: Projection | None) -> AbstractContextManager[None]:
        """While active, everything written to the residual stream is projected (None: nothing)."""
        if projection is not None and projection.d_model != self.d_model:
            raise InputError(
                f"the directions have {projection.d_model} values, "
                f"{self.name} has d_model {self.d_model}: they belong to another model"
            )
        head = (
            self.model.get_output_embeddings() if self.edit_head and is_tied(self.model) else None
        )
        return ablated(self.structure.sites(self.site), projection, head)

    def token_ids(self, prompt: str) -> list[int]:
        """The chat-formatted prompt, generation prompt included, as token ids."""
        return chat_token_ids(self.tokenizer, prompt, self.system)

    def batches(
        self, prompts: Sequence[str], size: int, suffixes: Sequence[Sequence[int]] | None = None
    ) -> Iterator[tuple[list[int], dict[str, Tensor]]]:
        """Length-sorted, left-padded batches: (indices into prompts, model inputs).

        suffixes : token ids appended to each prompt (replies to be scored), if given.
        """
        ids = [self.token_ids(p) for p in prompts]
        if suffixes is not None:
            ids = [[*head, *tail] for head, tail in zip(ids, suffixes, strict=True)]
        order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            yield rows, self._pad([ids[i] for i in rows])

    def _pad(self, ids: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        width = max(map(len, ids))
        pad = self.pad_token_id
        tokens = torch.tensor([[pad] * (width - len(row)) + list(row) for row in ids])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in ids])
        device = self.model.device
        return {"input_ids": tokens.to(device), "attention_mask": mask.to(device)}

    def decoder_inputs(self, batch: dict[str, Tensor]) -> dict[str, Tensor | bool]:
        """A batch as arguments of one plain forward pass: positions count real tokens only."""
        positions = (batch["attention_mask"].cumsum(dim=1) - 1).clamp(min=0)
        return {**batch, "position_ids": positions, "use_cache": False}

    @torch.no_grad()
    def next_token_log_probabilities(
        self, prompts: Sequence[str], batch_size: int
    ) -> Iterator[tuple[list[int], Tensor]]:
        """(indices, float32 log p (rows, vocabulary)) of the first reply token, batch by batch."""
        for rows, batch in self.batches(prompts, batch_size):
            logits = self.model(**self.decoder_inputs(batch), logits_to_keep=1).logits[:, -1]
            yield rows, logits.float().log_softmax(dim=-1)
