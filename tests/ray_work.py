"""Work for workers on Ray that is trouble the first time; a module, for they import it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from somatlas.errors import InputError
from somatlas.fleet import Work
from somatlas.progress import Advance, note


def hold(job: str, before: str | None) -> str:
    """What a worker holds: a word."""
    if job == "another on each":
        return str(os.getpid())
    return f"{job} after {before}" if before else job


def name_of(held: str) -> str:
    return held.split(" after ")[0]


def once(folder: Path, trouble: str) -> bool:
    """Whether this is the first time, over all workers."""
    try:
        (folder / trouble).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def troubled(held: str, folder: Path) -> Work[str, str]:
    """Does what an item says, once; gives it back with what the worker holds."""

    def work(items: Sequence[str], _advance: Advance) -> list[str]:
        for item in items:
            if item.startswith("kill") and once(folder, item):
                os.kill(os.getpid(), signal.SIGKILL)
            if item.startswith("hang") and once(folder, item):
                time.sleep(600)
            if item == "large" and len(items) > 1:
                raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
            if item == "huge":
                raise MemoryError
            if item == "wrong":
                raise InputError("the third layer is missing")
            if item == "import":
                import no_such_package  # type: ignore[import-not-found]  # noqa: F401
            if item == "note":
                note("the reply is short")
            if item == "slow":
                time.sleep(0.3)
        return [f"{item} by {held}" for item in items]

    return work


def blocks(_held: str, _shared: None) -> Work[int, NDArray[np.float32]]:
    """16 MiB an item."""
    return lambda items, _advance: [np.full(1 << 22, item, np.float32) for item in items]
