"""Several processes on one machine that share a stage: represent by shards, search by trials."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping

import torch

from somatlas.errors import InputError
from somatlas.models.placement import chosen_device
from somatlas.runs.folder import Run
from somatlas.runs.setting_sources import ENVIRONMENT_PREFIX
from somatlas.runs.settings import Stage

SHARED: tuple[Stage, ...] = ("represent", "search")  # the stages whose work can be shared


def share(run: Run, stage: Stage) -> None:
    """Start `workers` processes for a stage of the run, and wait for all of them.

    Each is the stage's own command with `part` set, on a GPU of its own where there are several,
    or on its share of the CPU's threads. Raises InputError where one fails; it has said why.
    """
    config = run.config
    run.record_config()
    command = [sys.executable, "-m", "somatlas", stage, config.model]
    command += ["--name", config.name, "--out", str(config.out)]
    processes = [
        subprocess.Popen(command, env=_environment(run, worker)) for worker in range(config.workers)
    ]
    try:
        codes = [process.wait() for process in processes]
    finally:
        for process in processes:
            if process.poll() is None:
                process.terminate()
    if failed := [code for code in codes if code]:
        raise InputError(
            f"{len(failed)} of {config.workers} workers of {stage} failed (exit code {failed[0]}): "
            "the same command goes on from what the others did"
        )


def _environment(run: Run, worker: int) -> Mapping[str, str]:
    config = run.config
    environment = {
        **os.environ,
        f"{ENVIRONMENT_PREFIX}PART": f"{worker}/{config.workers}",
        f"{ENVIRONMENT_PREFIX}WORKERS": "1",
    }
    if config.storage is not None:  # by the environment: other users can read a command line
        environment[f"{ENVIRONMENT_PREFIX}STORAGE"] = config.storage
    device = chosen_device(config.device)
    if device == "cuda" and (gpus := torch.cuda.device_count()) > 1:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(gpus)))).split(",")
        environment["CUDA_VISIBLE_DEVICES"] = visible[worker % len(visible)]
    elif device == "cpu":
        threads = max(1, torch.get_num_threads() // config.workers)
        environment.setdefault("OMP_NUM_THREADS", str(threads))
    return environment
