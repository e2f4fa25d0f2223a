"""The stages of a run, in order, and how they are carried out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from somatlas.runs.folder import Run
from somatlas.runs.settings import Stage
from somatlas.runs.stages.ablate_stage import ablate_stage
from somatlas.runs.stages.atlas_stage import atlas_stage
from somatlas.runs.stages.cost_stage import cost_stage
from somatlas.runs.stages.judge_stage import judge_stage
from somatlas.runs.stages.layers_stage import layers_stage
from somatlas.runs.stages.map_stage import map_stage
from somatlas.runs.stages.represent_stage import represent_stage
from somatlas.runs.stages.search_stage import search_stage

WORK: Mapping[Stage, Callable[[Run], None]] = {
    "represent": represent_stage,
    "layers": layers_stage,
    "map": map_stage,
    "search": search_stage,
    "ablate": ablate_stage,
    "judge": judge_stage,
    "cost": cost_stage,
    "atlas": atlas_stage,
}


def carry_out(
    run: Run,
    stages: Sequence[Stage],
    after: Callable[[Stage, bool], None] = lambda *_: None,
    before: Callable[[Stage], None] = lambda _: None,
) -> bool:
    """Do the stages that are not done, in order; whether there was any.

    before, after : told of each stage, and once it is done, whether it was done now.
    """
    worked = False
    for stage in stages:
        before(stage)
        now = run.carry_out(stage, WORK[stage])
        worked |= now
        after(stage, now)
    return worked
