"""Greedy completions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import GenerationConfig

from somatlas.models.language_model import LanguageModel
from somatlas.progress import Advance, ignore


@torch.no_grad()
def generate(
    lm: LanguageModel,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    batch_size: int,
    advance: Advance = ignore,
) -> list[str]:
    """The greedy reply to each prompt, in the prompts' order, special tokens left out.

    Greedy means the model's own first choice: sampling settings and repetition penalties of its
    generation config are not used. `advance` is told the number of prompts done.
    """
    settings = GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=lm.model.generation_config.eos_token_id,
        pad_token_id=lm.pad_token_id,
    )
    replies = [""] * len(prompts)
    for rows, batch in lm.batches(prompts, batch_size):
        output = lm.model.generate(**batch, generation_config=settings)
        new = output[:, batch["input_ids"].shape[1] :]
        texts = lm.tokenizer.batch_decode(new, skip_special_tokens=True)
        for row, text in zip(rows, texts, strict=True):
            replies[row] = text.strip()
        advance(len(rows))
    return replies
