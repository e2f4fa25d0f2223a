"""What the benchmarks share: time and the file of results."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import torch

MODEL = "smollm2-hardened"
RESULTS = Path(__file__).parent / "results"
T = TypeVar("T")


@dataclass(frozen=True)
class Row:
    """One line of the table: how many times as fast as a baseline of the same run."""

    what: str
    against: str
    ours: str
    baseline: str
    ratio: float
    target: float


def timed(work: Callable[[], T]) -> tuple[float, T]:
    """Seconds and result."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def write(name: str, rows: Sequence[Row]) -> None:
    """Write results/NAME.json and print the rows."""
    RESULTS.mkdir(exist_ok=True)
    machine = f"{os.cpu_count()} cores ({platform.machine()}), torch {torch.__version__}"
    content = {"machine": machine, "rows": [asdict(row) for row in rows]}
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n")
    for row in rows:
        print(
            f"{row.what}, against {row.against}: {row.ours} / {row.baseline}: "
            f"{row.ratio:.2f} (target {row.target})",
            flush=True,
        )
