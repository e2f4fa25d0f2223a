"""Trials, representations and decoding on one device, against what its memory and units allow.

    python benchmarks/gpu.py [--shape 8b|default|small] [--device cuda] [--prompts 41] [--tokens 48]

8b : Llama 3's 8B shape with random weights, bfloat16 (16 GB): speed does not depend on them, and no
reply ends before its last token. default : the embedded default model. small : a toy, to see that
the command works. Writes results/gpu_SHAPE.json; on a CPU also what one decoding step launches and
moves, from which docs/performance.md predicts a GPU's.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from transformers import LlamaConfig, LlamaForCausalLM

from common import MODEL, Row, timed, write
from somatlas import Projection
from somatlas.ablation import RowProjections
from somatlas.models.chat import chat_token_ids
from somatlas.models.generation import generate
from somatlas.models.language_model import LanguageModel
from somatlas.models.load import load_model
from somatlas.models.structure import find_structure
from somatlas.representations.extract import residual_stream

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from conftest import tiny_tokenizer

K, LANES, TRIALS = 3, (1, 4, 8, 16), 16
SHAPES: dict[str, dict[str, int]] = {
    "8b": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
    },
    "small": {
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 8,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 4096,
    },
}


def random_llama(shape: str, device: str) -> LanguageModel:
    """A Llama of a shape whose weights are noise, bfloat16, on a device; bytes are its tokens."""
    config = LlamaConfig(
        **SHAPES[shape],
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=None,
        pad_token_id=2,
    )
    with torch.device(device):
        torch.set_default_dtype(torch.bfloat16)
        model = LlamaForCausalLM(config).eval().requires_grad_(False)
        torch.set_default_dtype(torch.float32)
    tokenizer = tiny_tokenizer()
    tokenizer.padding_side = "left"
    ids = torch.tensor([chat_token_ids(tokenizer, "Hello there")], device=device)
    return LanguageModel(model, tokenizer, find_structure(model, ids), shape, shares_head=True)


def synchronized(device: str, work: Callable[[], Any]) -> float:
    """Seconds until the device has done the work."""

    def whole() -> None:
        work()
        if device == "cuda":
            torch.cuda.synchronize()

    whole()  # warm
    return timed(whole)[0]


def bandwidth(device: str) -> float:
    """Bytes a second read by a sum of 1 GB (64 MB on a CPU) of bfloat16."""
    count = 2**29 if device == "cuda" else 2**25
    much = torch.ones(count, dtype=torch.bfloat16, device=device)
    return 2 * count * 5 / synchronized(device, lambda: [much.max() for _ in range(5)])


def product_rate(device: str, dtype: torch.dtype) -> float:
    """Multiply-adds a second in large square products."""
    size = 8192 if device == "cuda" else 1024
    a = torch.randn(size, size, device=device).to(dtype)
    return 10 * size**3 / synchronized(device, lambda: [a @ a for _ in range(10)])


def step_cost(lm: LanguageModel, prompts: list[str], sets: list[Projection]) -> dict[str, float]:
    """What one more token costs with and without ablation: operations, and the bytes they write."""

    def counted(tokens: int, ablated: bool) -> tuple[int, int]:
        rows = RowProjections(sets) if ablated else None
        with lm.ablate(rows), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as p:
            generate(
                lm,
                prompts,
                max_new_tokens=tokens,
                batch_size=len(prompts) * len(sets),
                ablations=rows,
            )
        views = ("view", "reshape", "transpose", "slice", "expand", "permute", "as_strided", "t")
        leaves = [
            event
            for event in p.events()
            if event.name.startswith("aten::")
            and not any(child.name.startswith("aten::") for child in event.cpu_children)
            and not event.name.removeprefix("aten::").rstrip("_").startswith(views)
            and "empty" not in event.name
        ]
        return len(leaves), sum(max(0, e.cpu_memory_usage) for e in p.events() if not e.cpu_parent)

    found = {}
    for name, ablated in (("plain", False), ("ablated", True)):
        (short, few), (long, many) = counted(4, ablated), counted(12, ablated)
        found[f"{name} operations a step"] = (long - short) / 8
        found[f"{name} bytes a step"] = (many - few) / 8
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shape", choices=["8b", "default", "small"], default="8b")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--prompts", type=int, default=41)
    parser.add_argument("--tokens", type=int, default=48)
    asked = parser.parse_args()
    device, n = asked.device, asked.prompts
    if asked.shape == "default":
        lm = load_model(MODEL, device=device)
    else:
        lm = random_llama(asked.shape, device)
    rng = random.Random(0)
    prompts = ["".join(rng.choices("abcdefgh ", k=60)) for _ in range(n)]
    generator = torch.Generator().manual_seed(0)
    sets = [Projection(torch.randn(K, lm.d_model, generator=generator)) for _ in range(TRIALS)]
    weights = sum(p.numel() * p.element_size() for p in lm.model.parameters())
    dtype = lm.model.dtype
    card = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    print(f"{card}: {asked.shape}, {weights / 1e9:.1f} GB of weights, {dtype}", flush=True)

    def trials(lanes: int, tokens: int) -> float:
        """Seconds a trial, `lanes` in a batch."""
        rows = RowProjections(sets[:lanes])
        with lm.ablate(rows):
            made = synchronized(
                device,
                lambda: generate(
                    lm, prompts, max_new_tokens=tokens, batch_size=n * lanes, ablations=rows
                ),
            )
        return made / lanes

    rows = []
    seconds = {lanes: trials(lanes, asked.tokens) for lanes in LANES}
    for lanes in LANES:
        rows.append(
            Row(
                f"{asked.shape} shape, trials of {n} prompts x {asked.tokens} tokens, "
                f"{lanes} a batch",
                "one a batch",
                f"{60 / seconds[lanes]:.1f} a minute",
                f"{60 / seconds[1]:.1f} a minute",
                seconds[1] / seconds[lanes],
                4 if lanes == max(LANES) else 1,
            )
        )
    short = asked.tokens // 4
    step = (seconds[1] - trials(1, short)) / (asked.tokens - short)
    allowed = weights / bandwidth(device)
    rows.append(
        Row(
            "a decoding step, one trial a batch",
            "the weights read once at the measured bandwidth",
            f"{1e3 * step:.1f} ms",
            f"{1e3 * allowed:.1f} ms",
            allowed / step,
            0.5,
        )
    )
    many = prompts * 4
    spent = synchronized(
        device, lambda: residual_stream(lm, many, range(lm.n_layers), batch_size=len(many))
    )
    tokens = sum(len(lm.token_ids(prompt)) for prompt in many)
    blocks = sum(p.numel() for block in lm.structure.blocks for p in block.parameters())
    rate, peak = tokens * blocks / spent, product_rate(device, dtype)
    rows.append(
        Row(
            f"representations: {len(many) / spent:.0f} prompts/s; their multiply-adds a second",
            "a large product of the same dtype",
            f"{rate / 1e12:.2f} T/s",
            f"{peak / 1e12:.2f} T/s",
            rate / peak,
            0.5,
        )
    )
    write(f"gpu_{asked.shape}", rows)
    if device == "cpu":
        for name, value in step_cost(lm, prompts[:4], sets[:4]).items():
            print(f"{name}: {value:.0f}")


if __name__ == "__main__":
    main()
