"""Where a model goes and in which precision, where the user leaves that open.

On an accelerator: the precision that the checkpoint is stored in. On a CPU: float32 for models that
are small in it, for whose sake nothing is lost; of larger ones the faster of float32 and bfloat16,
by products of the model's own shapes, the output head's included. Which is the faster depends on
the processor: some multiply bfloat16 in their own units, some have none.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch.nn.functional import linear
from transformers import PretrainedConfig

SMALL = 2**30  # bytes of float32 weights up to which a CPU's precision is float32, and not tried
_ROWS = (32, 1024)  # of a step of decoding, of prompts
_SECONDS = 0.25  # that each product is repeated for, twice each: some two seconds in all
_GAIN = 1.2  # bfloat16 is taken from so much faster on: its results are coarser


@dataclass(frozen=True)
class Precision:
    """What was decided, and why, in words."""

    dtype: str
    reason: str


def chosen_device(device: str) -> str:
    """auto : a GPU where there is one, else the CPU; other names are themselves."""
    if device != "auto":
        return device
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def chosen_precision(config: PretrainedConfig, device: str) -> Precision:
    """For a model's text configuration on a device, as named by `chosen_device`."""
    if device != "cpu":
        stored = str(getattr(config, "dtype", None) or "float32").removeprefix("torch.")
        known = stored if stored in ("float32", "bfloat16", "float16") else "bfloat16"
        return Precision(known, f"as the checkpoint is stored, on {device}")
    width, vocabulary = getattr(config, "hidden_size", 0), getattr(config, "vocab_size", 0)
    inner = int(getattr(config, "intermediate_size", None) or 4 * width)
    layers = int(getattr(config, "num_hidden_layers", 0))
    if 4 * (layers * (4 * width + 3 * inner) + vocabulary) * width <= SMALL:
        return Precision("float32", "the model is small")
    shapes = {(width, width): 4 * layers, (inner, width): 3 * layers, (vocabulary, width): 1}
    seconds = {dtype: _seconds(shapes, dtype) for dtype in (torch.float32, torch.bfloat16)}
    gain = seconds[torch.float32] / seconds[torch.bfloat16]
    name = "bfloat16" if gain >= _GAIN else "float32"
    return Precision(name, f"bfloat16 has {gain:.1f} times the speed of float32 on this CPU")


@torch.no_grad()
def _seconds(shapes: dict[tuple[int, int], int], dtype: torch.dtype) -> float:
    """Of one pass through matrices (outputs, inputs), each as often as told."""
    total = 0.0
    for (outputs, inputs), count in shapes.items():
        weight = torch.randn(outputs, inputs).to(dtype)
        for rows in _ROWS:
            given = torch.randn(rows if count > 1 else min(rows, _ROWS[0]), inputs).to(dtype)
            linear(given, weight)  # the first one sets up what the others use
            start, done = time.perf_counter(), 0
            while time.perf_counter() - start < _SECONDS:
                linear(given, weight)
                done += 1
            total += count * (time.perf_counter() - start) / done
    return total
