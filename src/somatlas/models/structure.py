"""Where a decoder writes to its residual stream: found by name, verified by arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from somatlas.errors import InputError

# Names of the last linear map of an attention or MLP part, over the architectures of transformers.
_WRITER_NAMES = frozenset(
    {"c_proj", "dense", "dense_4h_to_h", "down_proj", "fc2", "fc_out", "o_proj", "out_proj"}
)


@dataclass(frozen=True)
class ResidualStructure:
    """The embedding, the decoder blocks, and every module that writes to the residual stream."""

    embedding: nn.Module
    blocks: tuple[nn.Module, ...]
    block_writers: tuple[tuple[nn.Module, ...], ...]

    @property
    def writers(self) -> tuple[nn.Module, ...]:
        """The embedding and all writers of all blocks: what an ablation acts on."""
        return (self.embedding, *(w for writers in self.block_writers for w in writers))


def find_structure(model: PreTrainedModel) -> ResidualStructure:
    """Find the structure of a decoder-only model; raises InputError where there is none."""
    config = model.config.get_text_config()
    kind = type(model).__name__
    blocks = next(
        (
            m
            for m in model.get_decoder().modules()
            if isinstance(m, nn.ModuleList) and len(m) == config.num_hidden_layers
        ),
        None,
    )
    if blocks is None:
        raise InputError(f"no list of {config.num_hidden_layers} decoder blocks found in {kind}")
    writers = tuple(
        tuple(
            module
            for name, module in block.named_modules()
            if name.rpartition(".")[2] in _WRITER_NAMES
        )
        for block in blocks
    )
    return ResidualStructure(model.get_input_embeddings(), tuple(blocks), writers)


@torch.no_grad()
def verify_structure(
    model: PreTrainedModel, structure: ResidualStructure, token_ids: Tensor
) -> None:
    """Check that the writes found are all there are, on token_ids (1, n).

    The first block's input must be the embedding's output, and each block's output its input plus
    its writers' outputs. Raises InputError naming the first block that does not add up and the
    share that is missing.
    """
    seen: dict[nn.Module, Tensor] = {}
    inputs: dict[nn.Module, Tensor] = {}

    def keep(module: nn.Module, _args: Any, output: Any) -> None:
        seen[module] = (output[0] if isinstance(output, tuple) else output).double()

    def keep_input(module: nn.Module, args: Any, kwargs: Any) -> None:
        inputs[module] = (args[0] if args else kwargs["hidden_states"]).double()

    handles = [m.register_forward_hook(keep) for m in (*structure.writers, *structure.blocks)]
    handles += [b.register_forward_pre_hook(keep_input, with_kwargs=True) for b in structure.blocks]
    try:
        model.get_decoder()(input_ids=token_ids.to(model.device), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()

    tolerance = 1e-4 if model.dtype in (torch.float32, torch.float64) else 2e-2
    expected = seen[structure.embedding]
    _compare(expected, inputs[structure.blocks[0]], tolerance, "the first block's input")
    for i, (block, writers) in enumerate(
        zip(structure.blocks, structure.block_writers, strict=True)
    ):
        expected = inputs[block] + sum(seen[w] for w in writers if w in seen)
        _compare(expected, seen[block], tolerance, f"block {i}'s output")


def _compare(expected: Tensor, actual: Tensor, tolerance: float, what: str) -> None:
    if not actual.isfinite().all():
        raise InputError(f"{what} holds NaN or infinite values: try another --dtype")
    missing = float((expected.to(actual.device) - actual).norm() / actual.norm())
    if missing > tolerance:
        raise InputError(
            f"{what} is not the sum of the writes found ({missing:.1%} of its length is missing): "
            "ablation would not be exact for this architecture"
        )
