"""What a run lacks."""

from __future__ import annotations

from somatlas.atlases.record import Atlas
from somatlas.directions.methods import METHODS
from somatlas.runs.contents import Inputs
from somatlas.runs.folder import Run
from somatlas.runs.settings import Stage

_PARTS: dict[Stage, str] = {
    "layers": "the choice of the layer",
    "map": "the map",
    "search": "the search for directions to ablate together",
    "ablate": "the replies to the test prompts",
    "judge": "the verdicts on the replies",
    "cost": "what ablation costs",
    "atlas": "neurons, geometry and stability",
}


def missing_parts(run: Run) -> list[str]:
    """In words, what the stages that are not done would make, but for what the user gave."""
    given = {"layers": run.config.layer is not None, "search": run.config.ids is not None}
    makes_map = METHODS.get(run.config.method).makes_map
    parts = {**_PARTS, "map": _PARTS["map"] if makes_map else "the directions"}
    return [what for stage, what in parts.items() if not (given.get(stage) or run.is_done(stage))]


def impossible_parts(run: Run) -> list[str]:
    """In words, what a figure cannot have, and why: no command makes it from these prompts."""
    atlas = Atlas.read_if_there(run.folder)
    missing = {} if atlas is None else atlas.missing
    return [f"{what}: {why}" for what, why in missing.items()]


def input_notes(run: Run) -> list[str]:
    """What a reader should know of the prompts."""
    inputs = Inputs.read_if_there(run.folder)
    return [] if inputs is None else inputs.notes
