"""The stages of a run: each reads the files of the ones before and writes its own.

| stage     | writes                                                              |
|-----------|---------------------------------------------------------------------|
| represent | representations/                                                    |
| layers    | layers.json                                                         |
| map       | map.safetensors, map.json, map.png, directions.safetensors,         |
|           | single_direction.safetensors                                        |
| search    | study.db, search.json, map.png (the chosen ranks outlined)          |
| ablate    | completions/base.jsonl, sd.jsonl, md.jsonl, ablate.json             |
| judge     | verdicts.jsonl, judge.json                                          |
| cost      | cost.json                                                           |
| atlas     | atlas.json                                                          |

After judge `somatlas.report.summary` writes evaluation.json and table.txt, and after atlas
`somatlas.report.page` writes report.html and figures/.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from somatlas.config import Stage
from somatlas.run import Run
from somatlas.stages.ablate import ablate_stage
from somatlas.stages.atlas import atlas_stage
from somatlas.stages.cost import cost_stage
from somatlas.stages.judge import judge_stage
from somatlas.stages.layers import layers_stage
from somatlas.stages.map import map_stage
from somatlas.stages.represent import represent_stage
from somatlas.stages.search import search_stage

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

__all__ = ["WORK"]
