"""How much memory a model's weights take, known before they are loaded, and what is given back."""

from __future__ import annotations

import copy
import ctypes
import sys
from typing import Any

import psutil
import torch
from transformers import AutoModelForCausalLM, PretrainedConfig

from somatlas.errors import InputError


def weight_bytes(
    config: PretrainedConfig, dtype: torch.dtype, loader: Any = AutoModelForCausalLM
) -> int:
    """Bytes of the weights in dtype: an empty model is built by the class that loads it, and no
    value is. Shared matrices count once."""
    build = getattr(loader, "_from_config", None) or loader.from_config
    with torch.device("meta"):
        model = build(copy.deepcopy(config))
    return int(sum(parameter.numel() for parameter in model.parameters()) * dtype.itemsize)


def free_bytes(device: str) -> int:
    """Bytes that are free on a device; on "spread", on all accelerators and the CPU together."""
    if device == "spread":
        cards = [torch.cuda.mem_get_info(i)[0] for i in range(torch.cuda.device_count())]
        return sum(cards) + int(psutil.virtual_memory().available)
    if torch.device(device).type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def check_memory(
    name: str, config: PretrainedConfig, dtype: torch.dtype, device: str, loader: Any
) -> None:
    """Raise InputError where the weights alone are larger than what is free."""
    if getattr(config, "quantization_config", None) is not None:
        return  # how much a packed format takes is the format's affair
    needed, free = weight_bytes(config, dtype, loader), free_bytes(device)
    if needed > free:
        raise InputError(
            f"the weights of {name} take {needed / 2**30:.1f} GiB in {str(dtype)[6:]} and {device} "
            f"has {free / 2**30:.1f} GiB free: take --dtype bfloat16, another --device (spread "
            "uses all), or a smaller model"
        )


def give_back() -> None:
    """Give memory that was freed back to the system: glibc keeps what batches of many sizes leave,
    a gigabyte a stage of the embedded default. Elsewhere it does nothing."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # not of musl
        if trim is not None:
            trim(0)
