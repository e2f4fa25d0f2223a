"""How long a run takes: an estimate from its own finished stages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from command import SMALL, Command
from somatlas.files import read_json
from somatlas.runs.estimate import expected_seconds, seconds_left, time_spent
from somatlas.runs.folder import run_at
from somatlas.runs.settings import STAGES


def stages_with(folder: Path, seconds: dict[str, float]) -> None:
    """Give the run's stages these seconds, and none to the others."""
    stages = read_json(folder / "stages.json")
    for stage in stages:
        stages[stage].pop("seconds", None)
        if stage in seconds:
            stages[stage]["seconds"] = seconds[stage]
    (folder / "stages.json").write_text(json.dumps(stages))


def test_a_machine_of_half_the_speed_needs_twice_the_time(whole: Path) -> None:
    run = run_at(whole)
    expected = expected_seconds(run)
    stages_with(whole, {"represent": 2 * expected["represent"], "layers": 2 * expected["layers"]})
    rest = sum(expected[stage] for stage in STAGES[2:])
    assert seconds_left(run, STAGES) == pytest.approx(2 * rest)
    stages_with(whole, {})
    assert seconds_left(run, STAGES) is None
    assert time_spent(run, STAGES) == ""
    stages_with(whole, dict.fromkeys(STAGES, 1.0) | {"search": 3.0})
    assert seconds_left(run, STAGES) == 0
    assert time_spent(run, STAGES).endswith("most took search, 30%")


def test_twice_the_trials_take_twice_the_time(whole: Path) -> None:
    run = run_at(whole)
    before = expected_seconds(run)
    run.config = run.config.model_copy(update={"trials": 2 * run.config.trials})
    after = expected_seconds(run)
    assert after["search"] == pytest.approx(2 * before["search"])
    assert after["ablate"] == before["ablate"]


def test_a_run_says_where_it_is_and_where_the_time_went(
    command: Command, tiny_folder: Path, tmp_path: Path
) -> None:
    result = command("run", tiny_folder, *SMALL, "--out", tmp_path)
    assert "stage 1 of 8: represent\n" in result.err
    assert "stage 4 of 8: search, about " in result.err
    assert "s in all (represent " in result.err
    again = command("run", tiny_folder, *SMALL, "--out", tmp_path).err
    assert "stage 4 of 8" not in again
    assert " in all" not in again
