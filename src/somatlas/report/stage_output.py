"""What is drawn and printed once a stage is done."""

from __future__ import annotations

from somatlas.report.cost_table import cost_text
from somatlas.report.figures.drawing import save_figure
from somatlas.report.figures.map_figures import map_figure
from somatlas.runs.contents import Contents, Inputs
from somatlas.runs.folder import Run
from somatlas.runs.map_file import has_map, read_map
from somatlas.runs.settings import Stage


def stage_output(run: Run, stage: Stage, *, now: bool) -> str:
    """Draw what belongs to a stage, and return what is printed of it, empty for nothing.

    now : whether the stage was done now; the map is drawn again then, or where it is not drawn.
    """
    if stage in ("map", "search") and (now or not run.path("map.png").exists()):
        draw_map(run)
    if stage == "judge":
        return run.path("table.txt").read_text(encoding="utf-8")
    if stage == "cost":
        return cost_text(run)
    return ""


def stage_notes(run: Run, stage: Stage) -> list[str]:
    """What a reader should know of a stage that is done, a sentence each."""
    inputs = Inputs.read_if_there(run.folder) if stage == "represent" else None
    return [] if inputs is None else inputs.notes


def draw_map(run: Run) -> None:
    """map.png, with the ranks outlined that the search chose, where it has; nothing where the
    run's method makes no map."""
    if not has_map(run.folder):
        return
    contents, found = Contents(run.folder), read_map(run.folder)
    figure = map_figure(
        found.coordinates,
        found.u_matrix if found.ordered else None,
        found.hits,
        found.neurons,
        topology=found.topology,
        chosen=contents.search.ranks if run.is_done("search") else (),
        title=f"{run.folder.parent.name}, layer {contents.directions.origin.layer}",
    )
    save_figure(figure, run.path("map.png"))
