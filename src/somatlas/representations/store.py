"""Representations on disk, in shards: neither writing nor reading holds them all.

    representations/
      index.json                       sides, their numbers of prompts, the layers kept, d_model,
                                       the token that is read
      positive-00000.safetensors       "vectors": (prompts of the shard, layers kept, d) float32
      ...

A shard is written whole or not at all, so that an interrupted stage goes on with the next one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from somatlas.errors import InputError
from somatlas.files import read_json, write_json, write_tensors
from somatlas.records import Form, checked
from somatlas.representations.extract import check_finite

Side = Literal["positive", "negative"]
SIDES: tuple[Side, ...] = ("positive", "negative")

_SHARD_BYTES = 1 << 26
_SHARD_PROMPTS = 512


@dataclass(frozen=True)
class Shard:
    """Prompts start .. stop - 1 of one side."""

    path: Path
    side: Side
    start: int
    stop: int


class _Index(Form):
    counts: dict[Side, int]
    layers: list[int]
    d_model: int


@dataclass(frozen=True)
class RepresentationStore:
    """The residual stream at one token of each prompt, for two sides and the layers kept."""

    folder: Path
    counts: dict[Side, int]
    layers: tuple[int, ...]
    d_model: int

    @classmethod
    def create(
        cls,
        folder: Path,
        counts: dict[Side, int],
        layers: Sequence[int],
        d_model: int,
        token: str = "prompt -1",
    ) -> RepresentationStore:
        """A new store, or the one that is there: whoever calls checks that it is the same run's.

        token : which one is read, for the record.
        """
        store = cls(folder, counts, tuple(layers), d_model)
        index = {"counts": counts, "layers": list(layers), "d_model": d_model, "token": token}
        write_json(folder / "index.json", index)
        return store

    @classmethod
    def open(cls, folder: Path) -> RepresentationStore:
        """The store of a finished stage; raises InputError where a shard is missing."""
        path = folder / "index.json"
        index = checked(_Index, read_json(path), str(path))
        store = cls(folder, index["counts"], tuple(index["layers"]), index["d_model"])
        if missing := store.missing():
            raise InputError(f"{missing[0].path} does not exist: run `somatlas represent` again")
        return store

    def shards(self) -> list[Shard]:
        """All shards, there or not."""
        rows = _SHARD_BYTES // (4 * len(self.layers) * self.d_model)
        rows = min(max(rows, 1), _SHARD_PROMPTS)
        return [
            Shard(
                self.folder / f"{side}-{number:05d}.safetensors",
                side,
                start,
                min(start + rows, self.counts[side]),
            )
            for side in SIDES
            for number, start in enumerate(range(0, self.counts[side], rows))
        ]

    def missing(self) -> list[Shard]:
        """The shards that are not there yet."""
        return [shard for shard in self.shards() if not shard.path.exists()]

    def write(self, shard: Shard, vectors: Tensor, **facts: str) -> None:
        """Write one shard's vectors (prompts, layers kept, d); facts : for its metadata."""
        metadata = {"side": shard.side, "first": str(shard.start), "axes": "prompt, layer, d_model"}
        write_tensors(shard.path, {"vectors": vectors}, metadata | facts)

    def at(self, side: Side, layer: int) -> Tensor:
        """(n, d) vectors of one side at one layer; raises InputError for a layer not kept."""
        place = self._place(layer)
        parts = [_read(s.path, (slice(None), place)) for s in self._of(side)]
        vectors = torch.cat(parts)
        check_finite(vectors[:, None], [layer])
        return vectors

    def means(self, side: Side) -> Tensor:
        """(layers kept, d) float64 mean over the prompts of one side, shard by shard."""
        total = torch.zeros(len(self.layers), self.d_model, dtype=torch.float64)
        for shard in self._of(side):
            vectors = _read(shard.path, (slice(None),))
            check_finite(vectors, self.layers)
            total += vectors.double().sum(dim=0)
        return total / self.counts[side]

    def mean_differences(self) -> Tensor:
        """(layers kept, d) float32 mean positive minus mean negative vector: SD of each layer."""
        return (self.means("positive") - self.means("negative")).float()

    def mean_at(self, side: Side, layer: int) -> Tensor:
        """(d,) float64 mean over the prompts of one side at one layer."""
        return self.means(side)[self._place(layer)]

    def _of(self, side: Side) -> Iterator[Shard]:
        return (shard for shard in self.shards() if shard.side == side)

    def _place(self, layer: int) -> int:
        if layer not in self.layers:
            kept = ", ".join(map(str, self.layers))
            raise InputError(f"layer {layer} was not kept: the run has layers {kept}")
        return self.layers.index(layer)


def _read(path: Path, index: tuple[Any, ...]) -> Tensor:
    try:
        with safe_open(path, framework="pt") as file:
            part: Tensor = file.get_slice("vectors")[index]
            return part
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise InputError(
            f"{path} is not a whole safetensors file ({error}): remove it and run "
            "`somatlas represent` again"
        ) from None
