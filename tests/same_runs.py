"""Whether two runs gave the same results: `python tests/same_runs.py RUN OTHER`.

Compared are all texts and tensors of the files that a run writes, and all numbers as far as they
mean something (1e-7 of their size, or 1e-5), but for what tells of time, place and versions, and
the fields that only one of them has (a later form's).
"""

from __future__ import annotations

import json
import sys
from math import isclose
from pathlib import Path
from typing import Any

import torch

from somatlas.files import read_json, read_tensors

JSON = ("layers", "map", "search", "ablate", "judge", "evaluation", "cost", "atlas")
TENSORS = ("map", "directions", "single_direction")
LINES = ("verdicts", "completions/base", "completions/sd", "completions/md")
TIMED = {"seconds", "version"}


def differences(one: Any, other: Any, place: str = "") -> list[str]:
    """Where two JSON values differ, in the fields that both have."""
    if isinstance(one, dict) and isinstance(other, dict):
        both = (one.keys() & other.keys()) - TIMED
        return [d for k in sorted(both) for d in differences(one[k], other[k], f"{place}.{k}")]
    if isinstance(one, list) and isinstance(other, list):
        if len(one) != len(other):
            return [f"{place}: {len(one)} and {len(other)} items"]
        pairs = enumerate(zip(one, other, strict=True))
        return [d for i, (a, b) in pairs for d in differences(a, b, f"{place}[{i}]")]
    if isinstance(one, float) and isinstance(other, float | int):
        return (
            []
            if isclose(one, other, rel_tol=1e-7, abs_tol=1e-5)
            else [f"{place}: {one} and {other}"]
        )
    return [] if one == other else [f"{place}: {one!r} and {other!r}"]


def lines_of(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def compared(one: Path, other: Path) -> list[str]:
    """Every difference, none where the results are the same."""
    found: list[str] = []
    for name in JSON:
        file = f"{name}.json"
        if (one / file).exists() and (other / file).exists():
            found += differences(read_json(one / file), read_json(other / file), file)
        else:
            sys.stdout.write(f"not compared: {file}, which one of them lacks\n")
    for name in LINES:
        file = f"{name}.jsonl"
        found += differences(lines_of(one / file), lines_of(other / file), file)
    for name in TENSORS:
        file = f"{name}.safetensors"
        (first, _), (second, _) = read_tensors(one / file), read_tensors(other / file)
        for tensor in sorted(first.keys() & second.keys()):
            if not torch.equal(first[tensor], second[tensor]):
                found.append(f"{file}: {tensor} differs")
    return found


if __name__ == "__main__":
    said = compared(*map(Path, sys.argv[1:3]))
    sys.stdout.write("\n".join(said[:40] or ["the same results"]) + "\n")
    sys.exit(bool(said))
