"""What Ray costs and gains: `python ray_speed.py`, ratios of one process, one and two workers.

A random model of some size, one thread each. Every stage is timed from when all workers are ready;
the least of several runs counts, for the machine may have other work.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from common import Row, timed, write
from somatlas.fleet.ray_fleet import RayFleet
from somatlas.runs.fields import STAGES
from somatlas.runs.folder import Run, shape_work
from somatlas.runs.pipeline import carry_out
from somatlas.runs.settings import Config

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from conftest import tiny_tokenizer

REPEATS = 2
SHARED = tuple(stage for stage in STAGES if stage not in ("map", "cost"))  # cost: no tasks here
HOW: Mapping[str, Mapping[str, Any]] = {
    "alone": {},
    "one": {"ray": "local", "workers": 1},
    "two": {"workers": 2},
}
SIZES: dict[str, Any] = {
    "train_prompts": 120,
    "refusal_tokens": (10, 20),
    "layer_prompts": 24,
    "grid": (3, 3),
    "iterations": 500,
    "trials": 8,
    "k": 2,
    "lanes": 1,
    "val_prompts": 16,
    "test_tokens": 24,
    "test_prompts": 32,
    "batch_size": 8,
    "device": "cpu",
    "dtype": "float32",
}


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        model = _model(Path(scratch) / "model")
        seconds: dict[str, dict[str, float]] = {name: {} for name in HOW}
        starts = []
        for repeat in range(REPEATS):
            for name, how in HOW.items():
                start, found = _run(model, Path(scratch) / f"{name}{repeat}", how)
                if name == "one":
                    starts.append(start)
                for stage, took in found.items():
                    known = seconds[name].get(stage, took)
                    seconds[name][stage] = min(known, took)
    total = {name: sum(found.values()) for name, found in seconds.items()}
    rows = [
        _row(stage, seconds["one"][stage], seconds["two"][stage], 2.0 * 0.85) for stage in SHARED
    ]
    one, two = (sum(seconds[name][stage] for stage in SHARED) for name in ("one", "two"))
    rows.append(_row("these stages together", one, two, 2.0 * 0.85))
    rows.append(
        Row(
            f"a whole run on one worker, after Ray's start ({min(starts):.0f} s)",
            "without Ray",
            f"{total['one']:.1f} s",
            f"{total['alone']:.1f} s",
            total["alone"] / total["one"],
            0.95,
        )
    )
    write("ray", rows)


def _row(what: str, one: float, two: float, target: float) -> Row:
    return Row(
        f"{what}, two workers", "one worker", f"{two:.1f} s", f"{one:.1f} s", one / two, target
    )


def _run(model: Path, out: Path, how: Mapping[str, Any]) -> tuple[float, dict[str, float]]:
    """Seconds until all workers are ready, and of every stage."""
    run = Run(Config(model=str(model), out=out, **SIZES, **how))
    try:
        start, _ = timed(lambda: _ready(run))
        carry_out(run, STAGES)
        return start, {stage: float(run.stages[stage]["seconds"]) for stage in STAGES}
    finally:
        run.dismiss()


def _ready(run: Run) -> None:
    """Have the model loaded by everyone."""
    while True:
        run.fleet.prepared(shape_work, None).one(None)
        if not isinstance(run.fleet, RayFleet) or len(run.fleet.places) == run.fleet.workers:
            return


def _model(folder: Path) -> Path:
    """8 layers of width 192."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=261,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=8,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
        initializer_range=0.1,
    )
    LlamaForCausalLM(config).eval().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


if __name__ == "__main__":
    main()
