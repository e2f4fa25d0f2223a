"""The constants with which a block's parts make its output, by least squares over all blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor, nn

from somatlas.models.recording import Recorder

_MIN_SCALE = 0.02  # a part whose constant is smaller, in the median over blocks, does not write

_Columns = dict[str, Tensor]


@dataclass(frozen=True)
class Terms:
    """What each container's output is made of.

    scales : for each container, the parts that write and their constants. missing : the share of
    its target that they leave unexplained. holds_input : whether every container adds to its input
    (one without input does).
    """

    scales: tuple[dict[str, float], ...]
    missing: tuple[float, ...]
    holds_input: bool

    @property
    def writers(self) -> set[str]:
        """The parts that write in some container."""
        return {name for scales in self.scales for name in scales}


def least_squares_terms(recorders: Sequence[Recorder], tolerance: float) -> Terms:
    """The terms of each container.

    A part writes where the median of its constant over all containers says so: in one block alone
    a constant can be ill-determined, as where a part puts out next to nothing. Where that does not
    add up, the blocks with the same kinds of parts are taken by themselves: in a hybrid a norm of
    one kind of block may bear the name of a writer in another. A container whose output is a norm
    of its input and its parts, as where norms stand in the stream itself, has the terms of that
    norm's input too. Parts without weights (a dropout, fixed positions) come in where those with
    weights do not add up.
    """
    weighted = [[n for n, p in r.parts.items() if has_weights(p.module)] for r in recorders]
    terms = _terms(recorders, weighted, tolerance)
    if max(terms.missing) <= tolerance:
        return terms
    return _terms(recorders, [list(r.parts) for r in recorders], tolerance)


def _terms(
    recorders: Sequence[Recorder], names: Sequence[Sequence[str]], tolerance: float
) -> Terms:
    """The terms of each container made of the parts named."""
    systems = [_system(r, r.target, own) for r, own in zip(recorders, names, strict=True)]
    found = [_solved(systems, i, range(len(systems))) for i in range(len(systems))]
    kinds = [
        tuple((name, type(r.parts[name].module)) for name in own)
        for r, own in zip(recorders, names, strict=True)
    ]
    for i, (_, _, share) in enumerate(found):
        if share > tolerance:
            alike = [j for j, kind in enumerate(kinds) if kind == kinds[i]]
            found[i] = min(found[i], _solved(systems, i, alike), key=lambda x: x[2])
    scales, holds = [], True
    for recorder, (own, kept, _) in zip(recorders, found, strict=True):
        whole = dict(own)
        if not kept and recorder.source.any():
            whole, kept = _through_norms(recorder, whole, tolerance)
        scales.append(whole)
        holds = holds and (kept or not recorder.source.any())
    return Terms(tuple(scales), tuple(share for _, _, share in found), holds)


def has_weights(module: nn.Module) -> bool:
    """Whether a module holds any parameter."""
    return any(True for _ in module.parameters())


def is_norm(module: nn.Module) -> bool:
    """Whether a module holds vectors alone: no matrix, so no map of its own."""
    return all(parameter.ndim <= 1 for parameter in module.parameters())


def _solved(
    systems: Sequence[tuple[_Columns, Tensor]], place: int, group: Sequence[int]
) -> tuple[dict[str, float], bool, float]:
    """One container's terms, whether its input is one, and the share that is left."""
    constants: dict[str, list[float]] = {}
    for i in group:
        columns, target = systems[i]
        for name, c in zip(columns, _least_squares(columns, target)[0], strict=True):
            constants.setdefault(name, []).append(abs(c))
    writers = {name for name, values in constants.items() if median(values) >= _MIN_SCALE}
    columns, target = systems[place]
    used = {name: column for name, column in columns.items() if name in writers or not name}
    values, share = _least_squares(used, target)
    scales = dict(zip(used, values, strict=True))
    kept = abs(scales.pop("", 0.0)) >= _MIN_SCALE
    return scales, kept, share


def _through_norms(
    recorder: Recorder, scales: dict[str, float], tolerance: float
) -> tuple[dict[str, float], bool]:
    """The terms with those of the norms among them, and whether they lead to the input."""
    found, kept = dict(scales), False
    waiting = [name for name in scales if is_norm(recorder.parts[name].module)]
    while waiting:
        source = recorder.parts[waiting.pop()].source
        if source is None:
            continue
        names = [name for name in recorder.parts if name not in scales]
        columns, target = _system(recorder, source, names)
        terms, holds, share = _solved([(columns, target)], 0, [0])
        if share > tolerance:
            continue
        kept = kept or holds
        new = {name: c for name, c in terms.items() if name not in found and abs(c) >= _MIN_SCALE}
        waiting += [name for name in new if is_norm(recorder.parts[name].module)]
        found |= new
    order = [name for name in recorder.parts if name in found]
    return ({name: found[name] for name in order}, True) if kept else (scales, False)


def _system(recorder: Recorder, target: Tensor, names: Sequence[str]) -> tuple[_Columns, Tensor]:
    """Columns (the input's is named "") and target, each value over its own magnitude.

    Rounding in half precision is relative to each value, and a few values of the stream are huge:
    divided by their magnitude all say equally much.
    """
    source = recorder.source
    size = source.abs() + target.abs()
    size = size + 0.1 * size.square().mean().sqrt()
    columns = {"": source} if source.any() else {}
    outputs = {name: recorder.parts[name].output for name in names}
    columns |= {name: output for name, output in outputs.items() if output.any()}
    return {name: (c / size).flatten() for name, c in columns.items()}, (target / size).flatten()


def _least_squares(columns: _Columns, target: Tensor) -> tuple[list[float], float]:
    """The constants that come nearest to target, and the share of it that is left."""
    if not columns:
        return [], 1.0
    matrix = torch.stack(list(columns.values()), dim=1)
    if not matrix.isfinite().all():
        return [0.0] * len(columns), float("inf")
    constants = torch.linalg.lstsq(matrix, target[:, None], driver="gelsd").solution
    left = target - (matrix @ constants)[:, 0]
    return constants[:, 0].tolist(), float(left.norm() / target.norm())
