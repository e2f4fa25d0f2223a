"""What a run has made so far, as the page and the figures read it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from somatlas.atlases.record import Atlas
from somatlas.evaluation.cost import Cost
from somatlas.evaluation.effects import Effects
from somatlas.evaluation.evaluation import Evaluation
from somatlas.measures.layer_choice import LayerChoice
from somatlas.runs.contents import Contents
from somatlas.runs.map_file import MapFile, has_map, read_map
from somatlas.searches.result import SearchResult


@dataclass(frozen=True)
class Facts:
    """The settings of a run and its records, None where a stage has not made them.

    condition : the one whose directions the atlas looks into.
    """

    settings: dict[str, Any]
    model: dict[str, Any] | None = None
    layers: LayerChoice | None = None
    map: MapFile | None = None
    search: SearchResult | None = None
    effects: Effects | None = None
    evaluation: Evaluation | None = None
    cost: Cost | None = None
    atlas: Atlas | None = None
    condition: str = "md"

    @property
    def ablated(self) -> list[int]:
        """The ranks that are ablated together, empty where it is not known yet."""
        found = self.evaluation or self.search
        return [] if found is None else list(found.ranks)

    @property
    def chosen(self) -> list[int]:
        """Those of them that are ranks of the run's own directions: none of a user's file is."""
        return [] if self.settings.get("directions") else self.ablated


def read_facts(folder: Path) -> Facts:
    """Read a run's folder; raises InputError where it is none, or a file in it is damaged."""
    contents = Contents(folder)
    return Facts(
        settings=contents.settings,
        model=contents.stages.get("represent", {}).get("model"),
        layers=LayerChoice.read_if_there(folder),
        map=read_map(folder) if has_map(folder) else None,
        search=SearchResult.read_if_there(folder),
        effects=Effects.read_if_there(folder),
        evaluation=Evaluation.read_if_there(folder),
        cost=Cost.read_if_there(folder),
        atlas=Atlas.read_if_there(folder),
    )
