"""Workers of an audit killed with SIGKILL, and its driver once: `python ray_audit_kills.py KILLS`.

An audit of two tiny random models by two workers of a local cluster, killed at random moments of
its pieces of work and begun again, is compared with the audit of one process.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from auditing import plan_file
from conftest import save_tiny

ATTACKS = """
sd = 4
som = 7
layerwise = 8
iterated = 6
gradient = 2
partial = 4
random = 2
transfer = 2
strip = 2
[attack_settings.gradient]
steps = 3
"""
WAIT_S = (1.5, 4.0)  # between two kills
IN_A_ROW = 3  # kills without anything kept between: a piece that is lost five times ends an audit


def working(driver: psutil.Process) -> list[psutil.Process]:
    """The driver's workers that have a piece in hand."""
    found = []
    for process in driver.children(recursive=True):
        with suppress(psutil.Error, IndexError):
            if process.cmdline()[0].startswith("ray::RayWorker.work"):
                found.append(process)
    return found


def contents(folder: Path) -> dict[str, bytes]:
    """Every file."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def size(folder: Path) -> int:
    """Bytes in it, while files come and go."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def main(kills: int) -> None:
    """Kill so many workers, and the driver once 25 attempts are kept."""
    rng, start = random.Random(0), time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        one, other = (save_tiny(place / name, seed=i) for i, name in enumerate(("tiny", "other")))
        plan = plan_file(place, ATTACKS, "seeds = 2\n")
        line = [sys.executable, "-m", "somatlas", "audit", str(one), "--against", str(other)]
        line += ["--plan", str(plan), "--refusal-tokens", "10,20", "--out"]
        subprocess.run([*line, str(place / "alone")], check=True, capture_output=True)
        attempts = place / "killed" / "tiny" / "audit-against-other" / "attempts.jsonl"
        killed = drivers = row = kept = 0
        code = None
        while code != 0:
            driver = psutil.Popen([*line, str(place / "killed"), "--workers", "2"])
            while (code := driver.poll()) is None:
                time.sleep(rng.uniform(*WAIT_S))
                found = size(place / "killed")
                row, kept = row if found == kept else 0, found
                if not drivers and attempts.exists() and attempts.read_bytes().count(b"\n") > 25:
                    driver.kill()
                    drivers += 1
                elif killed < kills and row < IN_A_ROW and (workers := working(driver)):
                    with suppress(psutil.NoSuchProcess):
                        rng.choice(workers).kill()
                        killed, row = killed + 1, row + 1
            assert code in (0, -9), code
        same = contents(place / "alone" / "tiny") == contents(place / "killed" / "tiny")
        print(
            f"{killed} workers and {drivers} driver killed in {time.monotonic() - start:.0f} s; "
            f"the same files: {same}"
        )
        assert same


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 12)
