"""What a run's folder holds so far, as the page and the figures read it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from somatlas.files import read_json, read_tensors
from somatlas.runs.settings import read_run_settings

Json = dict[str, Any]


@dataclass(frozen=True)
class MapFile:
    """The map of m neurons: coordinates (m, 2), u_matrix (m,), hits (m,), the neuron of each rank
    (r,), and how well it fits (`somatlas.atlases.map_errors`), None where that was not measured."""

    coordinates: NDArray[np.float64]
    u_matrix: NDArray[np.float64]
    hits: NDArray[np.int64]
    neurons: NDArray[np.int64]
    topology: str
    errors: Json | None

    @property
    def ordered(self) -> bool:
        """Whether neighbours on the grid are known to be neighbours in space."""
        return self.errors is not None and bool(self.errors["ordered"])

    @property
    def ranks(self) -> list[int | None]:
        """The rank of each neuron; None where it has no hits."""
        rank_of = {int(neuron): rank for rank, neuron in enumerate(self.neurons)}
        return [rank_of.get(neuron) for neuron in range(len(self.hits))]


@dataclass(frozen=True)
class Facts:
    """The settings of a run and its JSON files, None where a stage has not made them."""

    settings: Json
    model: Json | None
    layers: Json | None
    map: MapFile | None
    search: Json | None
    ablate: Json | None
    evaluation: Json | None
    cost: Json | None
    atlas: Json | None

    @property
    def ablated(self) -> list[int]:
        """The ranks that are ablated together, empty where it is not known yet."""
        return list((self.evaluation or self.search or {}).get("ranks", []))

    @property
    def chosen(self) -> list[int]:
        """Those of them that are ranks of the run's own directions: none of a user's file is."""
        return [] if self.settings.get("directions") else self.ablated


def read_facts(folder: Path) -> Facts:
    """Read a run's folder; raises InputError where it is none, or a file in it is damaged."""
    settings = read_run_settings(folder)

    def content(name: str) -> Json | None:
        path = folder / f"{name}.json"
        return read_json(path) if path.exists() else None

    return Facts(
        settings=settings,
        model=(content("stages") or {}).get("represent", {}).get("model"),
        layers=content("layers"),
        map=_map(folder / "map.safetensors", folder / "directions.safetensors", content("map")),
        search=content("search"),
        ablate=content("ablate"),
        evaluation=content("evaluation"),
        cost=content("cost"),
        atlas=content("atlas"),
    )


def _map(path: Path, directions: Path, errors: Json | None) -> MapFile | None:
    if not (path.exists() and directions.exists()):
        return None
    tensors, metadata = read_tensors(path)
    return MapFile(
        coordinates=tensors["coordinates"].numpy(),
        u_matrix=tensors["u_matrix"].numpy(),
        hits=tensors["hits"].numpy(),
        neurons=read_tensors(directions)[0]["neurons"].numpy(),
        topology=metadata["topology"],
        errors=errors,
    )
