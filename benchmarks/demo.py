"""The demo: the whole default run, alone and beside busy programs, and against another checkout.

    python benchmarks/demo.py [--against FOLDER] [--repeats 3] [--busy 2]

FOLDER is a checkout of this repository at another commit; runs of both alternate, each in a process
of its own, timed from start to end. Says too how much memory a run takes at most, and what share of
the machine's product rate it uses: multiply-adds of the model's linear layers, padding included,
over the whole time. Writes results/demo.json.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from statistics import median

from common import MODEL, Row, write
from representations import matrix_rate

COUNT = """
import atexit
from somatlas.models import packed
done, forward = [0], packed.PackedLinear.forward
def counted(self, input):
    done[0] += input.numel() * self.weight.shape[0]
    return forward(self, input)
packed.PackedLinear.forward = counted
atexit.register(lambda: print("done", done[0]))
"""
HERE = Path(__file__).parents[1]
GB = 1e9


def run(checkout: Path, counted: bool = False) -> tuple[float, float, float]:
    """Seconds of one run, its peak memory in bytes, and its multiply-adds if counted."""
    environment = os.environ | {"PYTHONPATH": str(checkout / "src")}
    with tempfile.TemporaryDirectory() as out:
        line = [sys.executable, "-c", COUNT * counted + _started(checkout), out]
        start = time.monotonic()
        with (Path(out) / "said").open("w+") as said:
            process = subprocess.Popen(
                line, env=environment, stdout=said, stderr=subprocess.STDOUT, cwd=out
            )
            _, status, usage = os.wait4(process.pid, 0)
            spent = time.monotonic() - start
            said.seek(0)
            text = said.read()
    if status:
        raise SystemExit(f"the run ended with status {status}:\n{text[-2000:]}")
    print(f"{checkout.name}: {spent:.0f} s; {_where(text)}", flush=True)
    counts = [float(row[5:]) for row in text.splitlines() if row.startswith("done ")]
    return spent, usage.ru_maxrss * 1024.0, sum(counts)


def _started(checkout: Path) -> str:
    """Code that does what the checkout's own command does."""
    scripts = tomllib.loads((checkout / "pyproject.toml").read_text())["project"]["scripts"]
    module, function = scripts["somatlas"].split(":")
    return (
        f"import sys; from {module} import {function}\n"
        f"sys.argv = ['somatlas', 'run', '--out', sys.argv[1]]; sys.exit({function}())"
    )


def _where(text: str) -> str:
    """What the run itself says of where its time went."""
    return next((row for row in text.splitlines() if " in all (" in row), "")


def weights() -> float:
    """Bytes of the default model's weights in float32."""
    from somatlas.models.load import load_model

    return float(sum(p.numel() * 4 for p in load_model(MODEL).model.parameters()))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--against", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--busy", type=int, default=2)
    asked = parser.parse_args()
    peak = matrix_rate()
    ours, theirs, memory, products = [], [], 0.0, 0.0
    for i in range(asked.repeats):
        spent, most, done = run(HERE, counted=i == 0)
        ours.append(spent)
        memory, products = max(memory, most), max(products, done / spent)
        if asked.against is not None:
            theirs.append(run(asked.against.resolve())[0])
    alone = median(ours)
    rows = []
    if theirs:
        rows.append(
            Row(
                f"the demo after the downloads (median of {asked.repeats})",
                "the commit before this work, alternating",
                f"{alone:.0f} s",
                f"{median(theirs):.0f} s",
                median(theirs) / alone,
                2.2,
            )
        )
    rows += [
        Row(
            f"the same, where float32 products run at {peak / 1e9:.0f} G/s",
            "four minutes",
            f"{alone:.0f} s",
            "240 s",
            240 / alone,
            1,
        ),
        Row(
            "its multiply-adds in linear layers a second",
            "float32 matrix product",
            f"{products / 1e9:.0f} G/s",
            f"{peak / 1e9:.0f} G/s",
            products / peak,
            0.5,
        ),
    ]
    allowed = 2 * weights() + 0.8 * GB
    rows.append(
        Row(
            "peak memory of the whole run",
            "twice the weights and 0.8 GB",
            f"{memory / GB:.2f} GB",
            f"{allowed / GB:.2f} GB",
            allowed / memory,
            1,
        )
    )
    write("demo", rows)
    if asked.busy:
        others = [
            subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(asked.busy)
        ]
        try:
            beside = median(run(HERE)[0] for _ in range(asked.repeats))
        finally:
            for other in others:
                other.kill()
        rows.append(
            Row(
                f"the demo beside {asked.busy} busy programs, at most 2.5 times as long",
                "2.5 times itself alone",
                f"{beside:.0f} s",
                f"{2.5 * alone:.0f} s",
                2.5 * alone / beside,
                1,
            )
        )
        write("demo", rows)


if __name__ == "__main__":
    main()
