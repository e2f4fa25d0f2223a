"""A run is the same whoever carries it out."""

from __future__ import annotations

from pathlib import Path

import pytest

from command import SMALL, Command, contents
from shuffled_fleet import ShuffledFleet
from somatlas.runs import folder
from somatlas.runs.fields import Stage

FURTHER = (
    *("--controls", "random", "--layer", "1", "--samples", "2", "--temperature", "1"),
    *("--objective", "asr,kl", "--more-judges", "keyword", "--batch-size", "4", "--trials", "6"),
)


def carried_out(
    workers: int,
    stage: Stage,
    monkeypatch: pytest.MonkeyPatch,
    command: Command,
    *line: str | Path,
) -> ShuffledFleet:
    fleets: list[ShuffledFleet] = []

    def make_fleet(run: folder.Run) -> ShuffledFleet:
        fleets.append(ShuffledFleet.of_run(run, workers, seed=workers))
        return fleets[-1]

    with monkeypatch.context() as patch:
        patch.setattr(folder, "make_fleet", make_fleet)
        result = command.until(stage, *line)
    assert result.code == 0, result.err
    return fleets[0]


def test_two_workers_that_come_back_in_any_order_make_the_files_of_one_process(
    command: Command, tiny_folder: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = ("--out", whole.parents[1], "--name", "shared")
    fleet = carried_out(2, "atlas", monkeypatch, command, tiny_folder, *SMALL, *place)
    assert fleet.lost > 1
    assert contents(whole.parent / "shared") == contents(whole)


def test_so_do_four_where_more_is_asked_for(
    command: Command, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = (*SMALL, *FURTHER, "--out")
    assert command.until("cost", tiny_folder, *flags, tmp_path / "alone").code == 0
    fleet = carried_out(4, "cost", monkeypatch, command, tiny_folder, *flags, tmp_path / "shared")
    assert fleet.lost > 1
    assert contents(tmp_path / "alone/tiny/default") == contents(tmp_path / "shared/tiny/default")
