"""stages.json: which stages of a run are done, and what decided their output."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from somatlas.files import read_json
from somatlas.records import Form, checked
from somatlas.runs.fields import Stage

FILE = "stages.json"


class StageRow(Form):
    """Of a stage that was begun: what decides its output. seconds : once it is done. model : of
    represent, what its weights are (`Run.model_record`). Stages record further facts of theirs."""

    settings: dict[str, Any]
    seconds: float = 0.0
    model: dict[str, Any] = Field(default_factory=dict)


def read_stages(folder: Path) -> dict[str, Any]:
    """The stages of a run's folder that were done or begun, none where it has no stages.json.

    Raises InputError where the file is damaged.
    """
    path = folder / FILE
    if not path.exists():
        return {}
    found: dict[str, Any] = checked(dict[Stage, StageRow], read_json(path), str(path))
    return found
