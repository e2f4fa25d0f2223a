"""Where a decoder writes to its residual stream: found by arithmetic, so verified when found.

Forward passes over a short prompt record what each part of each block puts out. The structure is
the solution of

    block output = c_0 * block input + sum_i c_i * (output of part i)

with constants c: 1 in most architectures, another number where a multiplier scales the branch, 0
for a part that does not write. Whatever the architecture is called, its sums add up or it is
refused. Constants commute with an ablation P, so P has to act on the writing parts alone.

A part that adds the residual itself (BLOOM's attention and MLP) would pass as the block's only
writer: c_0 is then 0, and the parts inside it are taken in its place. So are the parts of one
inside which something reads the stream before P has acted on all of it, which `unablated_readers`
tells of every structure that is found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from somatlas.errors import InputError
from somatlas.models.decoder import decoder_blocks, decoder_of
from somatlas.models.readers import unablated_readers
from somatlas.models.recording import Recorder, record
from somatlas.models.terms import Terms, is_norm, least_squares_terms

Site = Literal["projection", "residual"]

_EXACT_TOLERANCE, _HALF_TOLERANCE = 1e-4, 2e-2
_DEEPEST = 6  # how often parts are replaced by those inside them


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

    def sites(self, site: Site = "projection") -> tuple[tuple[int | None, nn.Module], ...]:
        """The modules whose outputs an ablation projects, each with its block, None for the
        embeddings'."""
        found: list[tuple[int | None, nn.Module]] = [(None, w.site(site)) for w in self.embeddings]
        for block, writes in enumerate(self.block_writes):
            found += [(block, w.site(site)) for w in writes]
        return tuple(dict.fromkeys(found))


@torch.no_grad()
def find_structure(model: PreTrainedModel, token_ids: Tensor) -> ResidualStructure:
    """Find and verify the structure with a few forward passes over token_ids (1, n).

    Raises InputError where there are no decoder blocks, the stream is none of vectors of d_model,
    naming the first block that does not add up and the share that is missing, or what inside a
    block reads the stream where an ablation would not have acted.
    """
    decoder, blocks = decoder_of(model), list(decoder_blocks(model))
    shape = (token_ids.numel(), int(model.config.get_text_config().hidden_size))
    exact = model.dtype in (torch.float32, torch.float64)
    tolerance = _EXACT_TOLERANCE if exact else _HALF_TOLERANCE
    ids = token_ids.to(model.device)
    inside: set[str] = set()  # parts whose own parts are taken in their place
    for _ in range(_DEEPEST):
        stem, recorders = record(decoder, blocks, ids, shape, inside)
        _check_stream(stem, recorders, tolerance)
        stem_terms = least_squares_terms([stem], tolerance)
        _check(stem_terms.missing[0], tolerance, "the first block's input")
        terms = least_squares_terms(recorders, tolerance)
        deeper = _that_hold_the_input(terms, recorders)
        if not deeper:
            for i, share in enumerate(terms.missing):
                _check(share, tolerance, f"block {i}'s output")
            structure = ResidualStructure(
                _writes(stem, stem_terms, 0),
                tuple(blocks),
                tuple(_writes(recorder, terms, i) for i, recorder in enumerate(recorders)),
                (*stem_terms.missing, *terms.missing),
            )
            unread = unablated_readers(
                decoder, blocks, structure.sites("residual"), ids, shape, tolerance
            )
            deeper = _that_contain(unread, structure)
            if not deeper:
                _check_readers(unread)
                return structure
        inside |= deeper
    raise InputError(
        f"the parts of {type(model).__name__} add to the residual stream within each other: "
        "ablation would not be exact for this architecture"
    )


def _that_hold_the_input(terms: Terms, recorders: Sequence[Recorder]) -> set[str]:
    """Parts to look into, where a block adds nothing to its input: their output holds it."""
    if terms.holds_input:
        return set()
    inner = {name for name in terms.writers if any(r.has_parts(name) for r in recorders)}
    if not inner:
        raise InputError(
            f"{', '.join(sorted(terms.writers)) or 'no part'} alone makes a block's output, which "
            "holds nothing of the block's input: it cannot be told what writes to the residual "
            "stream, and ablation would not be exact for this architecture"
        )
    return inner


def _that_contain(
    unread: Sequence[tuple[int, str, float]], structure: ResidualStructure
) -> set[str]:
    """The parts that write and inside which the stream is read too early."""
    return {
        write.path
        for block, path, _ in unread
        if block >= 0
        for write in structure.block_writes[block]
        if path.startswith(f"{write.path}.")
    }


def _check_readers(unread: Sequence[tuple[int, str, float]]) -> None:
    if unread:
        block, path, share = unread[0]
        where = f"{path} of block {block}" if block >= 0 else path
        raise InputError(
            f"{where} reads the residual stream where an ablation has not acted on all of it "
            f"({share:.1%} of it is along the ablated directions): ablation would not be exact for "
            "this architecture"
        )


def _check_stream(stem: Recorder, recorders: Sequence[Recorder], tolerance: float) -> None:
    """Raise InputError where the stream is not one vector a token, handed from block to block."""
    for recorder in (stem, *recorders):
        if recorder.odd_shape is not None:
            raise InputError(
                "its residual stream is not one vector a token (tensors of "
                f"{'x'.join(map(str, recorder.odd_shape))}, as of several streams side by side): "
                "such an architecture is not covered"
            )
    _check_finite(stem.target, "the first block's input")
    for i, recorder in enumerate(recorders):
        _check_finite(recorder.target, f"block {i}'s output")
    for i, (one, following) in enumerate(pairwise(recorders)):
        gap = (one.target - following.source).norm() / following.source.norm()
        _check(float(gap), tolerance, f"block {i + 1}'s input")


def _writes(recorder: Recorder, terms: Terms, place: int) -> tuple[Write, ...]:
    """The writes that the terms are."""
    found = dict.fromkeys(
        _write(recorder, name, scale) for name, scale in terms.scales[place].items()
    )
    return tuple(found)


def _write(recorder: Recorder, name: str, scale: float) -> Write:
    """The write that a term is, with the part before it where the term is a norm of that part."""
    part = recorder.parts[name]
    if part.source is not None and is_norm(part.module):
        for before, other in recorder.parts.items():
            if before != name and other.output.equal(part.source):
                return Write(before, other.module, part.module, scale)
    return Write(name, part.module, None, scale)


def _check_finite(vectors: Tensor, what: str) -> None:
    if not vectors.isfinite().all():
        raise InputError(f"{what} holds NaN or infinite values: try another --dtype")


def _check(missing: float, tolerance: float, what: str) -> None:
    if not missing <= tolerance:
        raise InputError(
            f"{what} is not the sum of the parts found ({missing:.1%} of it is missing): ablation "
            "would not be exact for this architecture"
        )
