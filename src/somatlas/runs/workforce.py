"""Who carries out a run's stages: this process, or workers on Ray that each hold the model."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from somatlas.errors import InputError
from somatlas.fleet import Fleet, InPlace
from somatlas.fleet.ray_cluster import LOCAL, Cluster, joined, leave
from somatlas.prompts import PromptSet
from somatlas.runs.settings import Config

__all__ = ["cluster_of", "device_of", "leave", "make_fleet", "on_ray", "pass_on"]

if TYPE_CHECKING:
    from somatlas.runs.folder import Run

# Of these the same are needed everywhere: their results differ from version to version.
_ALIKE = ("somatlas", "torch", "transformers", "numpy")
# Settings that may name files which workers read; what else they need is sent to them.
_PATHS = ("behaviour", "judge_template", "chat_template", "task_folder")


@dataclass(frozen=True)
class Job:
    """What a worker must know to hold a run's model and judges.

    config : without what is the driver's alone. prompts : of the run, read once by the driver.
    directory, paths : the driver's working directory, and the files and folders it has that the
    settings name. threads : of a worker's CPU work; None leaves them. versions : of the driver's
    packages.
    """

    config: Config
    folder: Path
    prompts: PromptSet
    rule_prompts: PromptSet | None
    directory: str
    paths: tuple[str, ...]
    threads: int | None
    versions: dict[str, str]


def on_ray(config: Config) -> bool:
    """Whether a run is carried out by workers on Ray."""
    several = (config.workers or 1) > 1 or config.gpus_per_worker is not None
    return config.ray is not None or several


def cluster_of(config: Config) -> Cluster:
    """The cluster that the settings ask for, joined.

    Raises InputError as `joined` does, and where the device is one of this machine's by number.
    """
    if ":" in config.device:
        raise InputError(
            f"--device {config.device} names a device of one machine, and Ray gives each worker "
            "its own: leave the number out"
        )
    gpus = config.gpus_per_worker
    if gpus is None and config.device in ("cpu", "mps"):
        gpus = 0.0
    return joined(config.ray or LOCAL, config.workers, gpus)


def device_of(config: Config) -> str:
    """Where the model runs, as `chosen_device` names it: on workers that have GPUs, there."""
    if config.device in ("auto", "spread") and on_ray(config) and cluster_of(config).gpus:
        return "cuda"
    return config.device


def make_fleet(run: Run) -> Fleet[Run]:
    """The run's fleet, as its settings ask for it."""
    if not on_ray(run.config):
        return InPlace(run)
    from somatlas.fleet.ray_fleet import RayFleet
    from somatlas.fleet.ray_worker import Holding

    cluster = cluster_of(run.config)
    holding = Holding(take_up, weights_name)
    return RayFleet(cluster, holding, job_of(run, cluster), run.config.piece_timeout)


def pass_on(fleet: Fleet[Run], run: Run) -> None:
    """Have another run carried out by a fleet on Ray; workers keep the model where they may."""
    begin: Callable[[Job], None] = fleet.begin  # type: ignore[attr-defined]
    begin(job_of(run, cluster_of(run.config)))


def job_of(run: Run, cluster: Cluster) -> Job:
    """What the workers are told of a run."""
    run.settle()
    config = run.config
    own: dict[str, Any] = {"storage": None, "ray": None, "workers": None, "gpus_per_worker": None}
    if cluster.gpus > 1 and config.device == "auto":
        own["device"] = "spread"
    threads = None
    if not cluster.gpus:
        beside = -(-cluster.workers // cluster.nodes)  # workers that share a machine
        threads = max(1, torch.get_num_threads() // beside)
    named = (config.model, *(getattr(config, name) or "" for name in _PATHS))
    return Job(
        config.model_copy(update=own),
        run.folder,
        run.all_prompts,
        run.rule_prompts if config.layer_data == "paper" else None,
        str(Path.cwd()),
        tuple(name for name in named if "{{" not in name and name and Path(name).exists()),
        threads,
        _versions(),
    )


def take_up(job: Job, before: Run | None) -> Run:
    """What a worker holds: the run, and its model, which another run's may be.

    Raises InputError where this machine has other versions of packages than the driver, or not the
    files that the settings name.
    """
    from somatlas.runs.folder import Run
    from somatlas.runs.resident import Resident

    here = platform.node()
    if Path(job.directory).is_dir():
        os.chdir(job.directory)  # names may be relative to it
    if missing := [name for name in job.paths if not Path(name).exists()]:
        raise InputError(
            f"{here} of the Ray cluster has no {missing[0]}: put it where every node sees it under "
            "this path, as on a shared file system"
        )
    if different := [name for name, found in _versions().items() if job.versions[name] != found]:
        name = different[0]
        raise InputError(
            f"{here} of the Ray cluster has {name} {_versions()[name]}, this machine "
            f"{job.versions[name]}: install the same on all machines"
        )
    if job.threads is not None:
        torch.set_num_threads(job.threads)
    run = Run(job.config, job.folder, keeps_files=False)
    run.all_prompts = job.prompts
    if job.rule_prompts is not None:
        run.rule_prompts = job.rule_prompts
    if before is not None:
        resident = Resident()
        resident.keep(before)
        resident.lend(run)
    try:
        _ = run.lm
    except InputError as error:
        raise InputError(f"{here} of the Ray cluster: {error}") from None
    return run


def weights_name(run: Run) -> str | None:
    """What two workers must agree in: the digest of their model's weights."""
    return run.weights


def _versions() -> dict[str, str]:
    return {name: version(name) for name in _ALIKE}
