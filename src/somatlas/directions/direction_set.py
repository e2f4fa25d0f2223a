"""A set of directions, what is known of where it comes from, and its file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self, SupportsIndex

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from somatlas.arguments import path_of
from somatlas.directions.som import SOM
from somatlas.errors import InputError
from somatlas.files import read_tensors, write_tensors
from somatlas.numerics.real_values import real_array


@dataclass(frozen=True)
class Origin:
    """Where directions come from, as far as it is known.

    method : a name of `somatlas.directions.methods.METHODS`, or words; "" where unknown. model : as
    the user named it. layer : of the representations. facts : what else a file's metadata says.
    """

    method: str = ""
    model: str = ""
    layer: int | None = None
    facts: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, metadata: Mapping[str, str]) -> Self:
        """What a file's metadata says."""
        rest = {name: value for name, value in metadata.items() if name not in _KNOWN}
        layer = metadata.get("layer", "")
        return cls(
            metadata.get("method", ""),
            metadata.get("model", ""),
            int(layer) if layer.isdigit() else None,
            rest,
        )

    @property
    def metadata(self) -> dict[str, str]:
        """The same as a file's metadata; what is unknown is left out."""
        layer = "" if self.layer is None else str(self.layer)
        known = {"method": self.method, "model": self.model, "layer": layer}
        return {**self.facts, **{name: value for name, value in known.items() if value}}


_KNOWN = ("method", "model", "layer")


@dataclass(frozen=True, eq=False)  # its own equality, and no hash
class DirectionSet:
    """Directions in rank order; a direction's id everywhere is its row here.

    vectors : (r, d) float32. neurons : (r,) int64, the neuron of the map, or the cluster of
    k-means, that each comes from; -1 where a method has neither, and 0 of SD, which is the one
    neuron of a map of 1x1. hits : (r,) int64, how many harmful representations each stands for; -1
    where that has no meaning. origin : where they come from. known_single : SD of the same
    representations, where it is known (`single`). known_map : the map whose neurons they come from.

    A slice, a list of ranks or one rank gives a set of its own, with the same origin:

    >>> several = DirectionSet.of_vectors(torch.eye(4), Origin("mine"))
    >>> len(several[:3]), several[[2, 0]].vectors.argmax(dim=1).tolist(), several[1].origin.method
    (3, [2, 0], 'mine')
    """

    vectors: Tensor
    neurons: Tensor
    hits: Tensor
    origin: Origin = Origin()
    known_single: DirectionSet | None = field(default=None, repr=False)
    known_map: SOM | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        shapes = [tuple(one.shape) for one in (self.vectors, self.neurons, self.hits)]
        r = shapes[0][:1]
        if len(shapes[0]) != 2 or shapes[1:] != [r, r]:
            raise InputError(
                "directions must be (r, d) vectors with r neurons and r hits, not of shapes "
                f"{', '.join(map(str, shapes))}"
            )

    def __eq__(self, other: object) -> bool:
        """Whether both hold the same directions in the same order, of the same origin."""
        if not isinstance(other, DirectionSet):
            return NotImplemented
        mine, theirs = ((s.vectors, s.neurons, s.hits) for s in (self, other))
        same = all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))
        return same and self.origin == other.origin

    def __len__(self) -> int:
        return len(self.vectors)

    def __getitem__(self, ranks: slice | SupportsIndex | Sequence[SupportsIndex]) -> Self:
        """The directions of a slice, of a list of ranks in its order, or of one rank.

        Raises IndexError for one rank beyond the last, InputError for a list with such a rank, with
        one twice, or of no whole numbers.
        """
        if isinstance(ranks, slice):
            rows = list(range(len(self)))[ranks]
        elif not isinstance(ranks, Sequence) and np.ndim(ranks) == 0:  # type: ignore[arg-type]
            try:
                rows = [range(len(self))[ranks]]
            except TypeError:
                raise InputError(f"a rank must be a whole number, not {ranks!r}") from None
        else:
            rows = self._listed(ranks)  # type: ignore[arg-type]  # what is no rank is said there
        return replace(
            self, vectors=self.vectors[rows], neurons=self.neurons[rows], hits=self.hits[rows]
        )

    def _listed(self, ranks: Sequence[SupportsIndex]) -> list[int]:
        if "bool" in str(getattr(ranks, "dtype", "")) or any(isinstance(r, bool) for r in ranks):
            raise InputError("directions are chosen by their ranks, not by a mask")
        try:
            rows = [r.__index__() for r in ranks]
        except (AttributeError, TypeError):
            raise InputError(f"ranks must be whole numbers, not {ranks!r}") from None
        for row in rows:
            if not 0 <= row < len(self):
                raise InputError(f"there is no direction {row}: ranks go from 0 to {len(self) - 1}")
        if len(set(rows)) < len(rows):
            raise InputError(f"ranks {','.join(map(str, rows))} name one direction twice")
        return rows

    @property
    def single(self) -> DirectionSet:
        """SD of the representations that these were made of, a set of one.

        Raises InputError where it is not known, as of a file: a run keeps it in
        single_direction.safetensors.
        """
        if self.known_single is not None:
            return self.known_single
        if self.origin.method == "sd" and len(self) == 1:
            return self
        raise InputError(
            "the single direction of these directions is not known: fit a method, or load a run's "
            "single_direction.safetensors"
        )

    @classmethod
    def of_vectors(cls, vectors: Tensor | NDArray[Any], origin: Origin | None = None) -> Self:
        """Directions (r, d) that come from no neuron.

        Raises InputError for another shape, and for values that are not finite.
        """
        found = real_array(vectors, "directions")
        if found.ndim != 2 or 0 in found.shape:
            raise InputError(
                f"directions must be a non-empty (r, d) array, not of shape {found.shape}"
                f"{': put the one into a list' if found.ndim == 1 and found.size else ''}"
            )
        if bad := np.flatnonzero(~np.isfinite(found).all(axis=1)).tolist():
            raise InputError(f"direction {bad[0]} holds NaN or infinite values")
        rows = torch.tensor(found, dtype=torch.float32)
        if bad := (~rows.isfinite().all(dim=1)).nonzero().flatten().tolist():
            raise InputError(f"direction {bad[0]} has values that float32 cannot hold")
        unknown = torch.full((len(rows),), -1)
        return cls(rows, unknown, unknown.clone(), origin or Origin())

    @classmethod
    def from_som(cls, som: SOM, harmless_mean: NDArray[Any] | Tensor) -> Self:
        """w_i - c for each neuron with hits, most hits first (paper, section on MD; `by_hits`).

        Raises NotFittedError for a map that was not trained, InputError for one that sees its
        vectors scaled: its neurons are none of theirs (`SOMDirections` knows both).
        """
        if som.scale != "none":
            raise InputError(
                f"the map sees its vectors scaled ({som.scale}), so its neurons are no vectors of "
                "theirs: SOMDirections(scale=...) makes directions of such a map"
            )
        weights = torch.from_numpy(som.weights_)
        centroid = torch.from_numpy(real_array(harmless_mean, "the harmless mean"))
        if centroid.shape != weights.shape[1:]:
            raise InputError(
                f"the harmless mean has shape {tuple(centroid.shape)}, "
                f"the map's neurons {tuple(weights.shape[1:])}"
            )
        if not centroid.isfinite().all():
            raise InputError("the harmless mean holds NaN or infinite values")
        neurons = by_hits(som)
        return cls.of_neurons(som, neurons, weights[neurons] - centroid)

    @classmethod
    def of_neurons(cls, som: SOM, neurons: Tensor, vectors: Tensor) -> Self:
        """Vectors (r, d) that a map's neurons (r,) stand for, which `by_hits` ranks."""
        hits = torch.from_numpy(som.hits_)[neurons]
        return cls(vectors.float(), neurons, hits, Origin("som"), known_map=som)

    @classmethod
    def of_mean_difference(
        cls, difference: Tensor, hits: int, origin: Origin | None = None
    ) -> Self:
        """The single direction (SD) alone, from `mean_difference` (d,); hits harmful prompts gave
        it."""
        return cls(
            vectors=difference[None],
            neurons=torch.zeros(1, dtype=torch.int64),
            hits=torch.tensor([hits]),
            origin=origin or Origin("sd"),
        )

    def save(self, path: str | Path, facts: Mapping[str, str] | None = None) -> None:
        """Write a safetensors file with the origin in its metadata.

        facts : more of it, under other names than method, model and layer, which the origin has.
        """
        tensors = {"vectors": self.vectors, "neurons": self.neurons, "hits": self.hits}
        write_tensors(path, tensors, {**(facts or {}), **self.origin.metadata})

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote, with its origin, or a directions.pt of the paper's code.

        Raises InputError for a damaged or other file.
        """
        path = path_of("path", path)
        if path.suffix == ".pt":
            return cls.from_paper_file(path)
        tensors, metadata = read_tensors(path)
        if missing := {"vectors", "neurons", "hits"} - tensors.keys():
            raise InputError(f"{path} is not a file of directions: it lacks {min(missing)!r}")
        vectors, neurons, hits = (tensors[name] for name in ("vectors", "neurons", "hits"))
        rows = vectors.shape[:1]
        if vectors.ndim != 2 or 0 in vectors.shape or {neurons.shape, hits.shape} != {rows}:
            raise InputError(
                f"{path} holds no set of directions: its vectors are {tuple(vectors.shape)}, its "
                f"neurons {tuple(neurons.shape)} and its hits {tuple(hits.shape)}"
            )
        _check_finite(vectors, path)
        return cls(vectors.float(), neurons.long(), hits.long(), Origin.of(metadata))

    @classmethod
    def from_paper_file(cls, path: Path) -> Self:
        """The vectors of a directions.pt: a tensor (r, d), one vector, or a list, in its order.

        It is unpickled with weights_only, so that it can run nothing; neurons and hits are unknown
        and -1.
        """
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # of several kinds, none of them torch's own
            reason = " ".join(str(error).split())[:120] or type(error).__name__
            raise InputError(f"{path} cannot be read as a file of tensors ({reason})") from None
        if isinstance(content, Tensor) and content.ndim == 1:
            content = content[None]
        rows = list(content) if isinstance(content, list | tuple | Tensor) else []
        if not rows or not all(isinstance(r, Tensor) and r.is_floating_point() for r in rows):
            raise InputError(f"{path} holds no list of directions")
        if len({row.numel() for row in rows}) > 1:
            raise InputError(f"{path} holds directions of different lengths")
        vectors = torch.stack([row.flatten().float() for row in rows])
        _check_finite(vectors, path)
        return cls.of_vectors(vectors)


def _check_finite(vectors: Tensor, path: Path) -> None:
    if not vectors.isfinite().all():
        raise InputError(f"{path} holds directions with NaN or infinite values")


def mean_difference(harmful: Tensor, harmless: Tensor) -> Tensor:
    """Mean over the first axis of harmful (n, ...) minus that of harmless (m, ...), in float32.

    With (n, L, d) and (m, L, d) this is SD at every layer at once.
    """
    return (harmful.double().mean(dim=0) - harmless.double().mean(dim=0)).float()


def by_hits(som: SOM) -> Tensor:
    """(r,) the neurons of a fitted map that have hits, most first; ties go to the neuron that is
    hit first in the order of the training data."""
    hit, first = np.unique(som.bmus_, return_index=True)
    order = sorted(range(len(hit)), key=lambda i: (-som.hits_[hit[i]], first[i]))
    return torch.from_numpy(hit[order])
