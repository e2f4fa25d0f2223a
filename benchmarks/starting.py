"""Seconds until the command has shown its help or its version.

python benchmarks/starting.py
"""

from __future__ import annotations

import subprocess
import sys

from common import Row, timed, write

ROUNDS, LIMIT = 15, 0.3
SHOWN = (["--version"], ["--help"], ["run", "--help"])


def seconds(arguments: list[str]) -> float:
    """Wall time of one start."""
    line = [sys.executable, "-m", "somatlas", *arguments]
    return timed(lambda: subprocess.run(line, check=True, stdout=subprocess.DEVNULL))[0]


def main() -> None:
    rounds = [[seconds(arguments) for arguments in SHOWN] for _ in range(ROUNDS)]
    fastest = [min(one) for one in zip(*rounds, strict=True)]  # others' work only slows
    write(
        "starting",
        [
            Row(
                f"`somatlas {' '.join(arguments)}` (fastest of {ROUNDS})",
                "a fixed limit",
                f"{ours:.2f} s",
                f"{LIMIT} s",
                LIMIT / ours,
                1,
            )
            for arguments, ours in zip(SHOWN, fastest, strict=True)
        ],
    )


if __name__ == "__main__":
    main()
