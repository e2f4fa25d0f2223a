"""A worker of a shared search, as a process: test_workers.py starts several and kills one.

python search_worker.py URL BUDGET NAME [MARK]: with MARK, it takes itself for another machine, and
in its third trial it writes the file MARK and hangs.
"""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from somatlas.searches import (
    Outcome,
    Ranks,
    SubsetSampler,
    SubsetSpace,
    open_storage,
    open_study,
    run_trials,
)

SPACE = SubsetSpace(9, 3)


def main() -> None:
    url, budget, name, *mark = sys.argv[1:]
    if mark:
        socket.gethostname = lambda: "elsewhere"
    study = open_study(
        open_storage(url, heartbeat_s=1, grace_s=3),
        "shared",
        SubsetSampler(SPACE, 0),
        ["maximize"],
        {},
    )
    calls = 0

    def evaluate(points: Sequence[Ranks], _threshold: float) -> list[Outcome]:
        nonlocal calls
        calls += 1
        if mark and calls == 3:
            Path(mark[0]).write_text(",".join(map(str, points[0])))
            time.sleep(600)
        time.sleep(0.1)
        return [Outcome(sum(p) / 21, 0.0, 0.0) for p in points]

    run_trials(study, SPACE, evaluate, int(budget))
    sys.stdout.write(f"{name} {calls}\n")


if __name__ == "__main__":
    main()
