"""The weights behind the writes, found by arithmetic as the writes themselves are.

A part's last linear map is the one that only moves the part's output along u when it is itself
moved along u. So every tensor of a part that has d_model values on some axis is moved in turn, and
the part run again on the input it had: no names, so any form of attention, MLP, mixer or expert.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from somatlas.ablation import OutputMap, Projection, edited_weights
from somatlas.errors import InputError
from somatlas.models.decoder import decoder_of, first_tensor
from somatlas.models.structure import ResidualStructure, Write
from somatlas.numerics.real_values import in_float64

_ALONG = 0.9  # share of a change of the output that lies along u, for a last map
_TRIED = 4  # tensors of one name (experts, say) with an effect that are looked at
_EXACT, _ROUGH = 1e-3, 5e-2  # by how much edited weights may differ from P on the output
_PROBE = 8  # tokens


class _Call(NamedTuple):
    """What a part was given, and what it put out, as (tokens, d) float64."""

    args: Any
    kwargs: Any
    output: Tensor


class _Slot(NamedTuple):
    """A tensor of a part by name, places in lists replaced by *, and one of its axes."""

    pattern: str
    axis: int


Placed = list[tuple[int | None, list[OutputMap]]]  # with the block of each, None: embeddings


def output_maps(model: PreTrainedModel, structure: ResidualStructure) -> list[OutputMap]:
    """Every matrix whose outputs go to the residual stream, embeddings first, once.

    Raises InputError as `placed_output_maps` does.
    """
    maps = [one for _, own in placed_output_maps(model, structure) for one in own]
    return list({id(one.weight): one for one in maps}.values())


def placed_output_maps(model: PreTrainedModel, structure: ResidualStructure) -> Placed:
    """The same, write by write with the block that it is in, None for the embeddings'.

    Parts of one name and class are looked at until the role of each of their tensors is known.
    Raises InputError for a part whose weights are quantised, offloaded, or do not make its output
    as a last linear map does.
    """
    names = {module: name for name, module in model.named_modules()}
    d_model = int(model.config.get_text_config().hidden_size)
    alike: dict[tuple[str, type], list[Write]] = defaultdict(list)
    for write in structure.writes:
        alike[write.path, type(write.module)].append(write)
    calls = _recorded(model, [w.module for w in structure.writes])
    found: dict[nn.Module, list[OutputMap]] = {}
    for writes in alike.values():
        last = _last_maps(writes, calls, d_model)
        for write in writes:
            name = names[write.module]
            found[write.module] = list(_maps(write.module, name, last))
            _check_weights(write.module, name, found[write.module])
        first = writes[0].module
        _verify(first, names[first], calls[first], found[first])
    blocks: list[int | None] = [None] * len(structure.embeddings)
    for block, own in enumerate(structure.block_writes):
        blocks += [block] * len(own)
    return [(b, found[w.module]) for b, w in zip(blocks, structure.writes, strict=True)]


def untie_head(model: PreTrainedModel) -> None:
    """Give the output head a matrix of its own where it shares the embedding's."""
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if head is not None and head.weight is embedding.weight:
        head.weight = nn.Parameter(embedding.weight.detach().clone(), requires_grad=False)
        for config in (model.config, model.config.get_text_config()):
            config.tie_word_embeddings = False


def is_tied(model: PreTrainedModel) -> bool:
    """Whether the output head shares the embedding's matrix."""
    head = model.get_output_embeddings()
    return head is not None and head.weight is model.get_input_embeddings().weight


@torch.no_grad()
def _recorded(model: PreTrainedModel, modules: Sequence[nn.Module]) -> dict[nn.Module, _Call]:
    """The first call of each module in a forward pass over a few tokens."""
    calls: dict[nn.Module, _Call] = {}

    def keep(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        calls.setdefault(module, _Call(args, kwargs, _vectors(output)))

    handles = [m.register_forward_hook(keep, with_kwargs=True) for m in dict.fromkeys(modules)]
    vocabulary = int(model.config.get_text_config().vocab_size)
    ids = torch.arange(5, 5 + _PROBE, device=model.device)[None] % vocabulary
    try:
        decoder_of(model)(input_ids=ids, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _last_maps(writes: Sequence[Write], calls: dict[nn.Module, _Call], d_model: int) -> set[_Slot]:
    """Which tensors of the parts are last maps, and over which axis they write."""
    if isinstance(writes[0].module, nn.Embedding):
        return {_Slot("weight", 1)}
    generator = torch.Generator().manual_seed(2)
    u = torch.nn.functional.normalize(torch.randn(d_model, generator=generator), dim=0)
    last: dict[_Slot, bool] = {}
    for write in writes:
        waiting: dict[_Slot, list[Tensor]] = defaultdict(list)
        for name, tensor in write.module.named_parameters():
            for axis, size in enumerate(tensor.shape):
                slot = _Slot(_pattern(name), axis)
                if size == d_model and slot not in last and _is_plain(tensor):
                    waiting[slot].append(tensor)
        if not waiting:
            break
        for slot, tensors in waiting.items():
            effects = _effects(write.module, calls[write.module], tensors, slot.axis, u)
            if effects:
                last[slot] = max(effects)[1]
    return {slot for slot, is_last in last.items() if is_last}


@torch.no_grad()
def _effects(
    module: nn.Module, call: _Call, tensors: Sequence[Tensor], axis: int, u: Tensor
) -> list[tuple[float, bool]]:
    """For tensors that have an effect, at most `_TRIED`: its size, and whether it is along u."""
    found = []
    least = 1e-6 if tensors[0].dtype in (torch.float32, torch.float64) else 1e-3
    for tensor in tensors:
        own = u.to(tensor.device, torch.promote_types(tensor.dtype, torch.float32))
        with _restored([tensor]):
            rows = tensor.detach().movedim(axis, -1)
            part = (rows.to(own.dtype) @ own)[..., None] * own
            rows.copy_(rows.to(own.dtype) + part * (len(u) ** 0.5 / 4))
            change = _run(module, call) - call.output
        size = float(change.norm() / call.output.norm().clamp(min=1e-300))
        if size > least:
            along = float((change @ in_float64(u)).norm() / change.norm())
            found.append((size, along > _ALONG))
        if len(found) == _TRIED:
            break
    return found


def _maps(module: nn.Module, name: str, last: set[_Slot]) -> Iterator[OutputMap]:
    """The last maps of a part. A bias goes with the weight that it belongs to, even one of zeros,
    of which nothing could be seen."""
    axes = {slot.pattern: slot.axis for slot in last}
    held = dict(module.named_parameters())
    tensors = {n: t for n, t in held.items() if _pattern(n) in axes}
    bias_of: dict[str, str] = {}
    for inner in tensors:
        stem, _, kind = inner.rpartition(".")
        own = {"weight": "bias"}.get(kind, f"{kind}_bias")  # or of experts in one tensor
        bias = f"{stem}.{own}" if stem else own
        if bias in held and (bias in tensors or not held[bias].any()):
            bias_of[inner] = bias
    for inner, tensor in tensors.items():
        if inner not in bias_of.values():
            full = ".".join(part for part in (name, inner) if part).removesuffix(".weight")
            bias = bias_of.get(inner, "")
            yield OutputMap(full, tensor, axes[_pattern(inner)], held.get(bias))


def _check_weights(module: nn.Module, name: str, maps: Sequence[OutputMap]) -> None:
    """Raise InputError where a part's weights are not there, or packed."""
    held = [*module.named_parameters(), *module.named_buffers()]
    for inner, tensor in held:
        if tensor.is_meta:
            raise InputError(
                f"the weights of {name}.{inner} are offloaded and cannot be edited, use hooks"
            )
    last = {id(one.weight) for one in maps}
    packed = [(n, t) for n, t in held if t.ndim > 1 and not _is_plain(t)]
    packed = [(n, t) for n, t in packed if id(t) in last or not maps]
    if packed:
        inner, tensor = packed[-1]
        raise InputError(
            f"the weights of {name}.{inner.removesuffix('.weight')} are quantised or packed "
            f"({tensor.dtype}, {'x'.join(map(str, tensor.shape))}): they cannot be edited, use "
            "hooks"
        )
    if not maps:
        raise InputError(
            f"{name} ({type(module).__name__}) has no last linear map whose weights could be "
            "edited: use hooks"
        )


@torch.no_grad()
def _verify(module: nn.Module, name: str, call: _Call, maps: Sequence[OutputMap]) -> None:
    """Raise InputError where editing the maps is not P on what the part puts out."""
    d_model = call.output.shape[-1]
    projection = Projection(torch.randn(1, d_model, generator=torch.Generator().manual_seed(3)))
    tensors = [t for one in maps for t in (one.weight, one.bias) if t is not None]
    if isinstance(module, nn.Embedding):
        return  # its rows are what it puts out
    with _restored(tensors), edited_weights(maps, projection):
        actual = _run(module, call)
    expected = projection.apply(call.output)
    exact = tensors[0].dtype in (torch.float32, torch.float64)
    gap = float((actual - expected).norm() / call.output.norm().clamp(min=1e-300))
    if gap > (_EXACT if exact else _ROUGH):
        raise InputError(
            f"editing the weights of {name} ({type(module).__name__}) is not the ablation of what "
            f"it puts out (off by {gap:.1e}): use hooks"
        )


@contextmanager
def _restored(tensors: Sequence[Tensor]) -> Iterator[None]:
    """Afterwards the tensors are what they were, bit for bit."""
    kept = [tensor.detach().clone() for tensor in tensors]
    try:
        yield
    finally:
        for tensor, was in zip(tensors, kept, strict=True):
            tensor.detach().copy_(was)


def _run(module: nn.Module, call: _Call) -> Tensor:
    return _vectors(module(*copy.copy(call.args), **copy.copy(call.kwargs)))


def _vectors(output: Any) -> Tensor:
    tensor = first_tensor(output)
    assert tensor is not None  # `find_structure` has seen it write
    return tensor.detach().cpu().double().reshape(-1, tensor.shape[-1])


def _is_plain(tensor: Tensor) -> bool:
    """Whether a tensor holds its values as they are: no packed or 8-bit format."""
    return tensor.is_floating_point() and tensor.dtype.itemsize > 1 and not tensor.is_meta


def _pattern(name: str) -> str:
    return ".".join("*" if part.isdigit() else part for part in name.split("."))
