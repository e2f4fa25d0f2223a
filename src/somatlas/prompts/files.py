"""Prompts from a file: JSON, JSONL, CSV, TXT (one a line) or Parquet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from somatlas.errors import InputError
from somatlas.prompts.sets import Prompt

# Columns that hold the request in common sets, tried in this order where --column is not given.
USUAL_COLUMNS = ("prompt", "instruction", "text", "question", "goal", "behavior", "Behavior")

Row = Mapping[str, Any]


def read_prompts(path: Path, column: str | None = None) -> list[Prompt]:
    """The prompts of a file, in order; `category` is taken along where the file has it.

    column : which one holds the request; by default the first of USUAL_COLUMNS that is there.
    Raises InputError for a missing, empty or unreadable file, an unknown format or column.
    """
    return rows_to_prompts(read_rows(path), column, str(path))


def read_rows(path: Path) -> list[Any]:
    """The rows of a file, in order; raises InputError where it cannot be read."""
    if not path.is_file():
        raise InputError(f"{path} does not exist")
    if path.suffix.lower() not in _READERS:
        raise InputError(f"{path} is not one of {', '.join(s[1:] for s in _READERS)} by its ending")
    try:
        rows = _READERS[path.suffix.lower()](path)
    except (UnicodeDecodeError, json.JSONDecodeError, csv.Error, OSError) as error:
        raise InputError(f"{path} cannot be read ({error})") from None
    return rows


def rows_to_prompts(rows: Sequence[Any], column: str | None, source: str) -> list[Prompt]:
    """Prompts from rows that are objects or plain strings; source is named in errors."""
    if not rows:
        raise InputError(f"{source} holds no prompts")
    if all(isinstance(row, str) for row in rows):
        rows = [{"prompt": row} for row in rows]
    if not all(isinstance(row, Mapping) for row in rows):
        raise InputError(f"{source} must hold objects or strings, one a prompt")
    columns = list(rows[0])
    chosen = column or next((c for c in USUAL_COLUMNS if c in columns), None)
    if chosen is None or any(chosen not in row for row in rows):
        wanted = repr(column) if column else " or ".join(USUAL_COLUMNS)
        raise InputError(
            f"{source} has no column {wanted} in every row "
            f"(it has {', '.join(map(str, columns))}): name the right one with --column"
        )
    prompts = [
        Prompt(text=str(row[chosen]).strip(), category=str(row.get("category") or ""))
        for row in rows
        if row[chosen] is not None and str(row[chosen]).strip()
    ]
    if not prompts:
        raise InputError(f"{source} holds no prompts: column {chosen!r} is empty")
    return prompts


def _read_json(path: Path) -> list[Any]:
    content = json.loads(path.read_text(encoding="utf-8-sig"))
    if not isinstance(content, list):
        raise InputError(f"{path} must hold a JSON list")
    return content


def _read_jsonl(path: Path) -> list[Any]:
    lines = path.read_text(encoding="utf-8-sig").split("\n")
    return [json.loads(line) for line in lines if line.strip()]


def _read_csv(path: Path) -> list[Any]:
    text = path.read_text(encoding="utf-8-sig")
    return list(csv.DictReader(io.StringIO(text, newline="")))


def _read_txt(path: Path) -> list[Any]:
    return [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]


def _read_parquet(path: Path) -> list[Any]:
    try:
        from pyarrow import ArrowException, parquet
    except ModuleNotFoundError:
        raise InputError(
            "reading Parquet needs pyarrow: pip install 'somatlas[hub]', or use JSONL"
        ) from None
    try:
        rows: list[Any] = parquet.read_table(path).to_pylist()
    except ArrowException as error:
        raise InputError(f"{path} cannot be read ({error})") from None
    return rows


_READERS: dict[str, Callable[[Path], list[Any]]] = {
    ".json": _read_json,
    ".jsonl": _read_jsonl,
    ".csv": _read_csv,
    ".txt": _read_txt,
    ".parquet": _read_parquet,
}
