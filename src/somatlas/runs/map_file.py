"""The map of a run as it is drawn."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from somatlas.files import read_json, read_tensors


@dataclass(frozen=True)
class MapFile:
    """The map of m neurons: coordinates (m, 2), u_matrix (m,), hits (m,), the neuron of each rank
    (r,), and how well it fits (`somatlas.atlases.map_errors`), None where that was not measured."""

    coordinates: NDArray[np.float64]
    u_matrix: NDArray[np.float64]
    hits: NDArray[np.int64]
    neurons: NDArray[np.int64]
    topology: str
    errors: dict[str, Any] | None

    @property
    def ordered(self) -> bool:
        """Whether neighbours on the grid are known to be neighbours in space."""
        return self.errors is not None and bool(self.errors["ordered"])

    @property
    def ranks(self) -> list[int | None]:
        """The rank of each neuron; None where it has no hits."""
        rank_of = {int(neuron): rank for rank, neuron in enumerate(self.neurons)}
        return [rank_of.get(neuron) for neuron in range(len(self.hits))]


def has_map(folder: Path) -> bool:
    """Whether a run's folder holds a map and the directions from it."""
    return all((folder / f"{name}.safetensors").exists() for name in ("map", "directions"))


def read_map(folder: Path) -> MapFile:
    """The map in a run's folder; raises InputError where there is none, or it is damaged."""
    tensors, metadata = read_tensors(folder / "map.safetensors")
    directions, _ = read_tensors(folder / "directions.safetensors")
    errors = folder / "map.json"
    return MapFile(
        coordinates=tensors["coordinates"].numpy(),
        u_matrix=tensors["u_matrix"].numpy(),
        hits=tensors["hits"].numpy(),
        neurons=directions["neurons"].numpy(),
        topology=metadata["topology"],
        errors=read_json(errors) if errors.exists() else None,
    )
