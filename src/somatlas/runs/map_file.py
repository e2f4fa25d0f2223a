"""The map of a run as it is drawn."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from somatlas.directions.direction_set import DirectionSet
from somatlas.directions.som import SOM
from somatlas.files import read_json
from somatlas.records import Form, Interval, checked

ERRORS = "map.json"


class _Chance(Form):
    permutations: int
    topographic: Interval
    rank_correlation: Interval | None = None


class _Errors(Form):
    """See `somatlas.atlases.map_errors`."""

    quantization: float
    topographic: float
    rank_correlation: float | None
    chance: _Chance | None
    ordered: bool

    @model_validator(mode="after")
    def _against_chance(self) -> Self:
        if self.rank_correlation is not None and (
            self.chance is None or self.chance.rank_correlation is None
        ):
            raise ValueError("chance has no rank_correlation to compare with")
        return self


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
    return drawn_map(
        SOM.load(folder / "map.safetensors"),
        DirectionSet.load(folder / "directions.safetensors"),
        read_map_errors(folder) if (folder / ERRORS).exists() else None,
    )


def read_map_errors(folder: Path) -> dict[str, Any]:
    """map.json: how well the map fits; raises InputError where it is missing or damaged."""
    path = folder / ERRORS
    found: dict[str, Any] = checked(_Errors, read_json(path), str(path))
    return found


def drawn_map(som: SOM, directions: DirectionSet, errors: dict[str, Any] | None) -> MapFile:
    """A fitted map with the directions from it. errors : as `somatlas.atlases.map_errors`."""
    return MapFile(
        coordinates=som.coordinates(),
        u_matrix=som.u_matrix(),
        hits=som.hits_,
        neurons=directions.neurons.numpy(),
        topology=som.topology,
        errors=errors,
    )
