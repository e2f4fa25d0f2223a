"""What workers are told, and what is said where their machines are not alike."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from command import Command
from somatlas import InputError
from somatlas.fleet.ray_cluster import Cluster
from somatlas.runs.folder import Run
from somatlas.runs.settings import Config
from somatlas.runs.workforce import job_of, on_ray, take_up

ONE = Cluster("local", 1, 2, 0.0)


def test_a_worker_is_told_no_password_and_not_to_share_its_own_work(
    tiny_folder: Path, tmp_path: Path
) -> None:
    storage = "postgresql://me:hunter2@host/db"
    config = Config(
        model=str(tiny_folder), out=tmp_path, workers=2, storage=storage, dtype="float32"
    )
    job = job_of(Run(config), ONE)
    assert "hunter2" not in repr(job)
    assert not on_ray(job.config)
    assert job.paths == (str(tiny_folder),)


@pytest.mark.parametrize(
    ("gpus", "device"), [(0.0, "auto"), (0.5, "auto"), (1.0, "auto"), (2.0, "spread")]
)
def test_a_model_is_spread_over_a_workers_gpus(
    tiny_folder: Path, tmp_path: Path, gpus: float, device: str
) -> None:
    run = Run(Config(model=str(tiny_folder), out=tmp_path, dtype="float32"))
    assert job_of(run, replace(ONE, gpus=gpus)).config.device == device


def test_nodes_that_are_not_alike(tiny_folder: Path, tmp_path: Path) -> None:
    job = job_of(Run(Config(model=str(tiny_folder), out=tmp_path)), ONE)
    assert job.config.dtype == "float32"  # settled by the driver, once for all
    with pytest.raises(InputError, match=r"of the Ray cluster has no /nowhere/model: put it"):
        take_up(replace(job, paths=("/nowhere/model",)), None)
    with pytest.raises(InputError, match=r"has torch .*, this machine 1\.0: install the same"):
        take_up(replace(job, versions={**job.versions, "torch": "1.0"}), None)
    gone = job.config.model_copy(update={"model": str(tmp_path / "gone")})
    with pytest.raises(InputError, match="of the Ray cluster: "):
        take_up(replace(job, config=gone), None)


def test_workers_need_ray_and_are_told_of_once(
    command: Command, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    one = ["--gpus-per-worker", "1", "--workers", "1"]
    for flags in (["--workers", "2"], ["--ray", "local"], one):
        said = command.fails("run", tiny_folder, *flags, "--out", tmp_path)
        assert "pip install 'somatlas[ray]'" in said
    said = command.fails("run", tiny_folder, "--gpus-per-worker", "1", "--out", tmp_path)
    assert "has no meaning without workers" in said
    said = command.fails("run", tiny_folder, "--workers", "2", "--device", "cuda:1")
    assert "leave the number out" in said
    said = command.fails("run", tiny_folder, "--workers", "2", "--gpus-per-worker", "1.5")
    assert "a share of a GPU, as 0.5, or a whole number" in said
    assert not list(tmp_path.iterdir())
