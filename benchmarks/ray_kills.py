"""Workers on Ray killed with SIGKILL at random moments of every stage: `python ray_kills.py KILLS`.

Runs of a tiny random model by two workers of a local cluster, each compared with the run of one
process; every kill is counted under the stage that it fell into.
"""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from somatlas.runs.fields import STAGES, Stage
from somatlas.runs.folder import Run
from somatlas.runs.pipeline import carry_out
from somatlas.runs.settings import Config

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from conftest import save_tiny

WITH_WORK = tuple(stage for stage in STAGES if stage != "map")
A_STAGE = 2  # kills of one stage of one run at most, so that there is an end to it
TIMED = ("config.toml", "stages.json", "study.db", "table.txt", "evaluation.json")
SMALL: dict[str, Any] = {
    "train_prompts": 96,
    "refusal_tokens": (10, 20),
    "layer_prompts": 16,
    "grid": (2, 3),
    "iterations": 300,
    "trials": 12,
    "k": 2,
    "val_prompts": 12,
    "test_tokens": 16,
    "lanes": 1,
    "test_prompts": 24,
    "batch_size": 8,
}


class Killer:
    """Kills workers of this process while the stages of a run are carried out."""

    def __init__(self, seed: int, seconds: dict[str, float]) -> None:
        self.kills, self._random = Counter[str](), random.Random(seed)
        self._seconds, self._over = seconds, threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self, stage: Stage) -> None:
        """A stage begins: kills fall into the time that two workers take for it undisturbed."""
        self.end()
        self._over.clear()
        self._thread = threading.Thread(target=self._work, args=(stage,), daemon=True)
        self._thread.start()

    def end(self) -> None:
        """No more kills."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def _work(self, stage: Stage) -> None:
        for _ in range(A_STAGE):
            while not workers_here():  # the first stage waits for Ray
                if self._over.wait(0.1):
                    return
            if self._over.wait(self._random.uniform(0, self._seconds.get(stage, 1.0) / 2)):
                return
            with suppress(psutil.NoSuchProcess, IndexError):  # gone by itself meanwhile
                self._random.choice(workers_here()).kill()
                self.kills[stage] += 1


def workers_here() -> list[psutil.Process]:
    """The workers that this process started, by way of Ray."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if process.cmdline()[0].startswith("ray::RayWorker"):
                found.append(process)
        except (psutil.Error, IndexError):
            continue
    return found


def contents(folder: Path) -> dict[str, bytes]:
    """All that the seed decides."""
    files = (p for p in folder.rglob("*") if p.is_file() and p.name not in TIMED)
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def main(kills: int) -> None:
    """Go on until there were so many kills, two in each stage at least."""
    with tempfile.TemporaryDirectory() as scratch:
        out, model = Path(scratch), str(save_tiny(Path(scratch) / "tiny"))
        alone = Run(Config(model=model, out=out, name="alone", **SMALL))
        carry_out(alone, STAGES)
        killer = Killer(0, {stage: alone.stages[stage]["seconds"] for stage in STAGES})
        number, start = 0, time.monotonic()
        while killer.kills.total() < kills or min(killer.kills[s] for s in WITH_WORK) < A_STAGE:
            number += 1
            shutil.rmtree(alone.folder.parent / ".replies")  # which runs of a model share
            config = Config(model=model, out=out, name=f"killed{number}", workers=2, **SMALL)
            run = Run(config)
            try:
                carry_out(run, STAGES, before=killer.begin)
            finally:
                killer.end()
                run.dismiss()
            same = contents(run.folder) == contents(alone.folder)
            print(f"run {number}: {dict(killer.kills)} kills so far, the same files: {same}")
            assert same
        print(
            f"{killer.kills.total()} kills in {number} runs and {time.monotonic() - start:.0f} s: "
            f"{dict(killer.kills)}; every run has the files of the undisturbed one"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
