"""What a short spin of waiting threads is worth, alone and beside two busy programs.

    python benchmarks/busy.py

32 prompts x 32 tokens on the default model, with the spin of OpenMP's library and with that which
somatlas sets, three times each, alternating; a process each, as the spin is read when torch is
loaded. Writes results/busy.json.
"""

from __future__ import annotations

import os
import subprocess
import sys
from statistics import median

from common import Row, write

CODE = """
import time
from somatlas.models.generation import generate
from somatlas.models.load import load_model
from somatlas.prompts import bundled_prompts
lm = load_model("smollm2-hardened")
prompts = [p.text for p in bundled_prompts().val.harmless[:32]]
generate(lm, prompts[:4], max_new_tokens=4, batch_size=4)
start = time.monotonic()
generate(lm, prompts, max_new_tokens=32, batch_size=32)
print(time.monotonic() - start)
"""
SPINS = {"as shipped by OpenMP": {"OMP_WAIT_POLICY": ""}, "somatlas's": {}}
BUSY, REPEATS = 2, 3
NAMES = ("GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_WAIT_POLICY")


def seconds(spin: dict[str, str]) -> float:
    """One process's time for the replies."""
    environment = {k: v for k, v in os.environ.items() if k not in NAMES} | spin
    line = [sys.executable, "-c", CODE]
    said = subprocess.run(line, env=environment, capture_output=True, text=True, check=True)
    return float(said.stdout.strip().splitlines()[-1])


def measured() -> dict[str, float]:
    """The median of each spin."""
    found: dict[str, list[float]] = {name: [] for name in SPINS}
    for _ in range(REPEATS):
        for name, spin in SPINS.items():
            found[name].append(seconds(spin))
            print(name, round(found[name][-1], 1), flush=True)
    return {name: median(own) for name, own in found.items()}


def main() -> None:
    alone = measured()
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(BUSY)]
    try:
        beside = measured()
    finally:
        for other in others:
            other.kill()
    before, ours = SPINS
    rows = [
        Row(
            f"32 replies of 32 tokens {where}",
            "OpenMP's own spin",
            f"{times[ours]:.1f} s",
            f"{times[before]:.1f} s",
            times[before] / times[ours],
            target,
        )
        for where, times, target in (
            ("alone", alone, 0.95),
            (f"beside {BUSY} busy programs", beside, 1.5),
        )
    ]
    write("busy", rows)
    ratios = [beside[name] / alone[name] for name in (ours, before)]
    print("beside / alone: {:.2f} (was {:.2f})".format(*ratios))


if __name__ == "__main__":
    main()
