"""Where a decoder writes to its residual stream: found by arithmetic, so verified when found.

One forward pass over a short prompt records what each part of each block puts out. The structure
is the solution of

    block output = c_0 * block input + sum_i c_i * (output of part i)

with constants c: 1 in most architectures, another number where a multiplier scales the branch, 0
for a part that does not write. Whatever the architecture is called, its sums add up or it is
refused. Constants commute with an ablation P, so P has to act on the writing parts alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from somatlas.errors import InputError

Site = Literal["projection", "residual"]

_MIN_SCALE = 0.02  # a part whose constant is smaller, in the median over blocks, does not write
_EXACT_TOLERANCE, _HALF_TOLERANCE = 1e-4, 2e-2


@dataclass(frozen=True)
class Write:
    """One term of the residual stream.

    path : the part's name in its block, or an embedding's in the decoder. module : the part
    (embedding, attention, MLP, mixture, mixer). norm : the norm that its output passes before it
    is added, or None. scale : the constant it is added with.
    """

    path: str
    module: nn.Module
    norm: nn.Module | None
    scale: float

    def site(self, site: Site) -> nn.Module:
        """Whose output an ablation projects: the part's ("projection", the paper's) or, where a
        norm follows, the norm's ("residual")."""
        return self.norm if site == "residual" and self.norm is not None else self.module


@dataclass(frozen=True)
class ResidualStructure:
    """The terms of the residual stream: the embeddings', then each block's.

    missing : the share of the first block's input, then of each block's output, that the terms
    leave unexplained.
    """

    embeddings: tuple[Write, ...]
    blocks: tuple[nn.Module, ...]
    block_writes: tuple[tuple[Write, ...], ...]
    missing: tuple[float, ...]

    @property
    def writes(self) -> tuple[Write, ...]:
        """All terms, in the order of the forward pass."""
        return (*self.embeddings, *(w for writes in self.block_writes for w in writes))

    @property
    def normed(self) -> bool:
        """Whether a norm follows some write: what is projected out before it may come back."""
        return any(w.norm is not None for w in self.writes)

    def sites(self, site: Site = "projection") -> tuple[nn.Module, ...]:
        """The modules whose outputs an ablation projects."""
        return tuple(w.site(site) for w in self.writes)


@torch.no_grad()
def find_structure(model: PreTrainedModel, token_ids: Tensor) -> ResidualStructure:
    """Find and verify the structure with one forward pass over token_ids (1, n).

    Raises InputError where there are no decoder blocks, or naming the first block that does not
    add up and the share that is missing.
    """
    config = model.config.get_text_config()
    decoder = model.get_decoder()
    blocks = _decoder_blocks(decoder, config.num_hidden_layers, type(model).__name__)
    shape = (token_ids.numel(), int(config.hidden_size))
    stem = _Recorder(decoder, shape, first_block=blocks[0])
    recorders = [_Recorder(block, shape) for block in blocks]
    try:
        decoder(input_ids=token_ids.to(model.device), use_cache=False)
    finally:
        for recorder in (stem, *recorders):
            recorder.close()

    _check_finite(stem.target, "the first block's input")
    for i, recorder in enumerate(recorders):
        _check_finite(recorder.target, f"block {i}'s output")
    exact = model.dtype in (torch.float32, torch.float64)
    tolerance = _EXACT_TOLERANCE if exact else _HALF_TOLERANCE
    (embeddings,), stem_missing = _solve([stem])
    _check(stem_missing[0], tolerance, "the first block's input")
    for i, (one, following) in enumerate(pairwise(recorders)):
        gap = (one.target - following.source).norm() / following.source.norm()
        _check(float(gap), tolerance, f"block {i + 1}'s input")
    block_writes, missing = _solve(recorders)
    for i, share in enumerate(missing):
        _check(share, tolerance, f"block {i}'s output")
    return ResidualStructure(
        embeddings, tuple(blocks), tuple(block_writes), (*stem_missing, *missing)
    )


def _decoder_blocks(decoder: nn.Module, count: int, kind: str) -> nn.ModuleList:
    for module in decoder.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise InputError(f"no list of {count} decoder blocks found in {kind}: it cannot be studied")


class _Recorder:
    """Hooks on a container (a block, or the decoder up to its first block) and its children.

    source, target : the container's input and output, (n, d) float64 on the CPU; the decoder has
    the first block's input as its target and no source. parts : name -> module, input and output
    of each child that has parameters, ran, and puts out vectors of the stream's shape; where two
    put out the same (two norms with equal weights), of the first.
    """

    def __init__(
        self, container: nn.Module, shape: tuple[int, int], first_block: nn.Module | None = None
    ) -> None:
        self.shape = shape
        self.source = self.target = torch.zeros(shape, dtype=torch.float64)
        self.parts: dict[str, tuple[nn.Module, Tensor | None, Tensor]] = {}
        self.handles = [
            child.register_forward_hook(self._part(name), with_kwargs=True)
            for name, child in container.named_children()
            if any(True for _ in child.parameters()) and not isinstance(child, nn.ModuleList)
        ]
        self.open = True
        if first_block is None:
            self.handles.append(container.register_forward_hook(self._whole, with_kwargs=True))
        else:
            self.handles.append(
                first_block.register_forward_pre_hook(self._enter_blocks, with_kwargs=True)
            )

    def close(self) -> None:
        for handle in self.handles:
            handle.remove()

    def _vectors(self, value: Any) -> Tensor | None:
        value = value[0] if isinstance(value, tuple) and value else value
        if not isinstance(value, Tensor) or value.numel() != self.shape[0] * self.shape[1]:
            return None
        if value.shape[-1] != self.shape[1] or not value.is_floating_point():
            return None
        return value.detach().to("cpu", torch.float64).reshape(self.shape)

    def _input(self, args: Any, kwargs: Any) -> Tensor | None:
        return self._vectors(args[0] if args else kwargs.get("hidden_states"))

    def _part(self, name: str) -> Any:
        def record(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            vectors = self._vectors(output)
            known = (known for _, _, known in self.parts.values())
            if self.open and vectors is not None and not any(map(vectors.equal, known)):
                self.parts[name] = (module, self._input(args, kwargs), vectors)

        return record

    def _whole(self, _module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        source, target = self._input(args, kwargs), self._vectors(output)
        if source is not None and target is not None:
            self.source, self.target = source, target

    def _enter_blocks(self, _module: nn.Module, args: Any, kwargs: Any) -> None:
        target = self._input(args, kwargs)
        if target is not None:
            self.target = target
        self.open = False


def _solve(recorders: Sequence[_Recorder]) -> tuple[list[tuple[Write, ...]], list[float]]:
    """The writes of each container, and the share of its target that they leave unexplained.

    A part writes where the median of its constant over all containers says so: in one block alone
    a constant can be ill-determined, as where a part puts out next to nothing.
    """
    systems = [_system(recorder) for recorder in recorders]
    constants: dict[str, list[float]] = {}
    for columns, target in systems:
        for name, c in zip(columns, _least_squares(columns, target)[0], strict=True):
            constants.setdefault(name, []).append(abs(c))
    writers = {name for name, values in constants.items() if median(values) >= _MIN_SCALE}
    all_writes, missing = [], []
    for recorder, (columns, target) in zip(recorders, systems, strict=True):
        used = {name: column for name, column in columns.items() if name in writers or not name}
        scales, share = _least_squares(used, target)
        all_writes.append(
            tuple(
                _write(recorder, name, scale)
                for name, scale in zip(used, scales, strict=True)
                if name
            )
        )
        missing.append(share)
    return all_writes, missing


def _system(recorder: _Recorder) -> tuple[dict[str, Tensor], Tensor]:
    """Columns (the input's is named "") and target, each value over its own magnitude.

    Rounding in half precision is relative to each value, and a few values of the stream are huge:
    divided by their magnitude all say equally much.
    """
    source, target = recorder.source, recorder.target
    size = source.abs() + target.abs()
    size = size + 0.1 * size.square().mean().sqrt()
    columns = {"": source} if source.any() else {}
    columns |= {name: output for name, (_, _, output) in recorder.parts.items() if output.any()}
    return {name: (c / size).flatten() for name, c in columns.items()}, (target / size).flatten()


def _least_squares(columns: dict[str, Tensor], target: Tensor) -> tuple[list[float], float]:
    """The constants that come nearest to target, and the share of it that is left."""
    if not columns:
        return [], 1.0
    matrix = torch.stack(list(columns.values()), dim=1)
    constants = torch.linalg.lstsq(matrix, target[:, None], driver="gelsd").solution
    left = target - (matrix @ constants)[:, 0]
    return constants[:, 0].tolist(), float(left.norm() / target.norm())


def _write(recorder: _Recorder, name: str, scale: float) -> Write:
    """The write that a term is, with the part before it where the term is a norm of that part."""
    module, source, _ = recorder.parts[name]
    if source is not None and _is_norm(module):
        for part, (before, _, output) in recorder.parts.items():
            if part != name and output.equal(source):
                return Write(part, before, module, scale)
    return Write(name, module, None, scale)


def _is_norm(module: nn.Module) -> bool:
    """Whether a module holds vectors alone: no matrix, so no map of its own."""
    return all(parameter.ndim <= 1 for parameter in module.parameters())


def _check_finite(vectors: Tensor, what: str) -> None:
    if not vectors.isfinite().all():
        raise InputError(f"{what} holds NaN or infinite values: try another --dtype")


def _check(missing: float, tolerance: float, what: str) -> None:
    if missing > tolerance:
        raise InputError(
            f"{what} is not the sum of the parts found ({missing:.1%} of it is missing): ablation "
            "would not be exact for this architecture"
        )
