"""What a folder below a model's holds: a run, a sweep or an audit, and no two of them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from somatlas.errors import InputError

Kind = Literal["run", "sweep", "audit"]
_MARKS: dict[Kind, str] = {"run": "config.toml", "sweep": "sweep.json", "audit": "plan.json"}


def check_folder(folder: Path, kind: Kind) -> None:
    """Raise InputError where a folder holds something of another kind than is to be kept or read
    there."""
    for other, name in _MARKS.items():
        if other != kind and (folder / name).exists():
            raise InputError(
                f"{folder} holds {_a(other)} (its {name} is there), and is no place for "
                f"{_a(kind)}: give another --name, or another folder"
            )


def _a(kind: Kind) -> str:
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"
