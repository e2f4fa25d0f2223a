"""Peak memory of a driver whose worker represents ever more prompts.

    python benchmarks/ray_memory.py

A random Llama of 80 layers and d 8192, narrow inside; 500 and 2,500 prompts, whose vectors are 1.3
and 6.6 GB on disk (float32), go from one worker on Ray to the driver, which writes them.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from common import Row, write
from memory import represent, save_model

SIDES, LAYERS, D_MODEL, INNER = (250, 1250), 80, 8192, 16
GB = 1e9
CODE = """
import resource, sys
from somatlas.cli.main import main
try:
    main()
finally:
    print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def driver(line: list[str]) -> float:
    """Bytes that the driver alone had at most: workers are other processes."""
    whole = [sys.executable, "-c", CODE, *line, "--workers", "1"]
    said = subprocess.run(whole, check=True, stdout=subprocess.PIPE, text=True).stdout
    return float(next(row[5:] for row in said.splitlines() if row.startswith("peak ")))


def main() -> None:
    peaks = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        save_model(folder / "model", LAYERS, D_MODEL, INNER)
        for side in SIDES:
            peaks[side] = driver(represent(folder, side, folder / "runs"))
            shutil.rmtree(folder / "runs")
            print(f"{2 * side} prompts: {peaks[side] / GB:.2f} GB", flush=True)
    few, many = (peaks[side] for side in SIDES)
    write(
        "ray_memory",
        [
            Row(
                f"a driver's peak memory, {2 * SIDES[1]} prompts x {LAYERS} layers x {D_MODEL} "
                "through one worker on Ray",
                f"the same of {2 * SIDES[0]} prompts",
                f"{many / GB:.2f} GB",
                f"{few / GB:.2f} GB",
                few / many,
                0.9,
            )
        ],
    )


if __name__ == "__main__":
    main()
