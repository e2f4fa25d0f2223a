"""The decoder of a model and its blocks, and what passes through its modules."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from somatlas.errors import InputError


def decoder_blocks(model: PreTrainedModel) -> nn.ModuleList:
    """The list of decoder blocks; raises InputError where there is none."""
    count = model.config.get_text_config().num_hidden_layers
    for module in model.get_decoder().modules():
        if isinstance(module, nn.ModuleList) and len(module) == count > 0:
            return module
    raise InputError(
        f"no list of {count} decoder blocks found in {type(model).__name__}: it cannot be studied"
    )


def decoder_of(model: PreTrainedModel) -> PreTrainedModel:
    """The innermost model that holds the blocks: no output head, no encoder of images.

    transformers' own `get_decoder` gives the whole model, head included, for some (Llama 4).
    """
    blocks = decoder_blocks(model)
    found = model.get_decoder()
    for module in found.modules():
        if isinstance(module, PreTrainedModel) and any(x is blocks for x in module.modules()):
            found = module
    return found


def first_tensor(value: Any) -> Tensor | None:
    """What a module takes or gives for the residual stream: a tensor, or the first of several."""
    value = value[0] if isinstance(value, tuple) and value else value
    return value if isinstance(value, Tensor) else None


def stream_input(args: Any, kwargs: Any) -> Tensor | None:
    """The tensor that a module's call was given first, by place or as hidden_states."""
    return first_tensor(args[0] if args else kwargs.get("hidden_states"))


def stream_vectors(value: Tensor | None, shape: tuple[int, int]) -> Tensor | None:
    """A tensor as (n, d) where it is of that size and holds numbers, else None."""
    if value is None or value.numel() != shape[0] * shape[1]:
        return None
    if value.shape[-1] != shape[1] or not value.is_floating_point():
        return None
    return value.detach().reshape(shape)
