"""Representations with Llama's default system prompt, against the paper's protocol.

python benchmarks/representations.py
"""

from __future__ import annotations

from dataclasses import replace

import torch
from transformers.models.llama.tokenization_llama import DEFAULT_SYSTEM_PROMPT

from baseline import Baseline, checkpoint
from common import MODEL, Row, timed, write
from somatlas.models.batches import common_head
from somatlas.models.language_model import LanguageModel
from somatlas.models.load import load_model
from somatlas.prompts import bundled_prompts
from somatlas.representations.extract import residual_stream

PAPER, OURS, BATCH = 40, 320, 64


def needed_operations(lm: LanguageModel, prompts: list[str]) -> float:
    """Multiply-adds: the shared head once, then each prompt's own tokens, through all blocks."""
    ids = [lm.token_ids(prompt) for prompt in prompts]
    head = len(common_head(ids))
    weights = sum(
        parameter.numel()
        for block in lm.structure.blocks
        for parameter in block.parameters()
        if parameter.ndim == 2
    )
    heads = lm.model.config.num_attention_heads * lm.model.config.head_dim
    total = float(head * weights + lm.n_layers * head**2 * heads)
    for row in ids:
        own = len(row) - head
        seen = own * head + own * (own + 1) / 2  # pairs of query and key
        total += own * weights + 2 * lm.n_layers * seen * heads
    return total


def matrix_rate(size: int = 2048, seconds: float = 4.0) -> float:
    """The machine's float32 multiply-adds a second in large square products, best of many."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    best, spent = float("inf"), 0.0
    while spent < seconds:
        one, _ = timed(lambda: a @ b)
        best, spent = min(best, one), spent + one
    return size**3 / best


def main() -> None:
    lm = replace(load_model(MODEL), system=DEFAULT_SYSTEM_PROMPT)
    prompts = [p.text for p in bundled_prompts().positive["train"]][:OURS]
    residual_stream(lm, prompts[:4], range(lm.n_layers), batch_size=4)  # warm
    with checkpoint() as folder:
        baseline = Baseline.load(folder)
    baseline.representations(prompts[:2], DEFAULT_SYSTEM_PROMPT)
    slow, expected = timed(lambda: baseline.representations(prompts[:PAPER], DEFAULT_SYSTEM_PROMPT))
    fast, vectors = timed(
        lambda: residual_stream(lm, prompts, range(lm.n_layers), batch_size=BATCH)
    )
    gap = (vectors[:PAPER, :-1] - expected[:, :-1]).norm() / expected[:, :-1].norm()
    assert gap < 1e-4, gap  # the same work; the paper's last state is after the final norm
    rate = needed_operations(lm, prompts) / fast
    peak = matrix_rate()
    write(
        "representations",
        [
            Row(
                "representations, Llama's default system prompt",
                "paper protocol",
                f"{OURS / fast:.1f} prompts/s",
                f"{PAPER / slow:.1f} prompts/s",
                (OURS / fast) / (PAPER / slow),
                5,
            ),
            Row(
                "the same, multiply-adds needed a second",
                "float32 matrix product",
                f"{rate / 1e9:.0f} G/s",
                f"{peak / 1e9:.0f} G/s",
                rate / peak,
                0.6,
            ),
        ],
    )


if __name__ == "__main__":
    main()
