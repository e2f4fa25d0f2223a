"""The lowest versions that pyproject.toml allows, one a line, for `make bounds`.

python tests/lowest.py > constraints.txt
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"


def lowest() -> list[str]:
    """`name==version` of every dependency; each must have a lower bound."""
    lines = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]["dependencies"]
    found = [re.match(r"([\w-]+)(?:\[.*\])?>=([\w.]+)", line) for line in lines]
    without = [line for line, match in zip(lines, found, strict=True) if match is None]
    assert not without, f"no lower bound: {without}"
    return [f"{match[1]}=={match[2]}" for match in found if match is not None]


if __name__ == "__main__":
    sys.stdout.write("\n".join(lowest()) + "\n")
