"""Prompts from a file: JSON, JSONL, CSV, TXT (one a line) or Parquet."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from somatlas.arguments import check_unicode
from somatlas.errors import InputError
from somatlas.files import from_json, lines_of
from somatlas.prompts.prompt_set import Prompt, Split
from somatlas.prompts.values import UnreadableError, label_of, request_of

# Columns that hold the request in common sets, tried in this order where --column is not given.
USUAL_COLUMNS = (
    *("prompt", "instruction", "text", "question", "goal", "behavior", "Behavior"),
    *("messages", "conversations", "conversation", "turns"),
)
SPLIT_COLUMN = "split"
# Columns whose equal values belong together, where --group does not say which. Those of SHARED
# are the same thing on both sides of a contrast; an id is one file's own.
SHARED_GROUPS = ("topic", "group", "group_id", "pair", "pair_id")
USUAL_GROUPS = (*SHARED_GROUPS, "id")
_SPLIT_NAMES: Mapping[str, Split] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "development"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_QUOTED = (
    "put a text that holds a comma, a quotation mark or a line break in double quotes, and double "
    "those within it"
)

Row = Mapping[str, Any]


Note = Callable[[str], None]  # told what a reader of the results should know


def read_prompts(
    path: Path,
    column: str | None = None,
    groups: Sequence[str] | None = None,
    note: Note = lambda _: None,
) -> list[Prompt]:
    """The prompts of a file, in order, with the category, topic, split and groups that it gives.

    column : which one holds the request; by default the first of USUAL_COLUMNS that is there.
    groups : columns whose equal values belong together; by default those of USUAL_GROUPS that are
    there. note : told of rows that hold no request, which are left out. Raises InputError for a
    missing, empty or unreadable file, an unknown format or column.
    """
    return rows_to_prompts(read_rows(path), column, str(path), groups, note)


def read_rows(path: Path) -> list[Any]:
    """The rows of a file, in order; raises InputError where it cannot be read."""
    if not path.exists():
        raise InputError(f"{path} does not exist")
    endings = ", ".join(ending[1:] for ending in _READERS)
    if path.is_dir():
        raise InputError(f"{path} is a folder: name a file in it ({endings})")
    if path.suffix.lower() not in _READERS:
        raise InputError(f"{path} is not one of {endings} by its ending")
    try:
        rows = _READERS[path.suffix.lower()](path)
    except (UnicodeDecodeError, json.JSONDecodeError, OSError) as error:
        raise InputError(f"{path} cannot be read ({error})") from None
    return rows


def rows_to_prompts(
    rows: Sequence[Any],
    column: str | None,
    source: str,
    groups: Sequence[str] | None = None,
    note: Note = lambda _: None,
) -> list[Prompt]:
    """Prompts from rows that are objects or plain strings; source is named in errors and notes."""
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
    grouping = _grouping(columns, groups, source)
    prompts = []
    for number, row in enumerate(rows, start=1):
        try:
            text = request_of(row[chosen]).strip()
        except UnreadableError as reason:
            raise InputError(f"{source}, row {number}: column {chosen!r} {reason}") from None
        if not text:
            continue
        labels = {column: label_of(row.get(column)) for column in ("category", "topic", *grouping)}
        for column, value in {**labels, chosen: text}.items():
            check_unicode(f"{source}, row {number}: column {column!r}", value)
        prompts.append(
            Prompt(
                text,
                category=labels["category"],
                topic=labels["topic"],
                split=_split(row.get(SPLIT_COLUMN), source, number),
                groups=tuple((column, labels[column]) for column in grouping if labels[column]),
            )
        )
    if not prompts:
        raise InputError(f"{source} holds no prompts: column {chosen!r} is empty")
    if left := len(rows) - len(prompts):
        note(f"{left} rows of {source} hold no request in {chosen!r}: they were left out")
    return prompts


def _grouping(columns: Sequence[str], given: Sequence[str] | None, source: str) -> list[str]:
    if given is None:
        return [column for column in USUAL_GROUPS if column in columns]
    names = [] if list(given) == ["none"] else list(given)
    if lacking := [name for name in names if name not in columns]:
        raise InputError(
            f"{source} has no column {lacking[0]!r} to group by (it has "
            f"{', '.join(map(str, columns))}): name another with --group, or none"
        )
    return names


def _split(value: Any, source: str, number: int) -> Split | None:
    name = label_of(value).lower()
    if not name:
        return None
    if name not in _SPLIT_NAMES:
        raise InputError(
            f"{source}, row {number}: split {value!r} is none of train, val and test: rename it, "
            f"or the column {SPLIT_COLUMN!r}"
        )
    return _SPLIT_NAMES[name]


def _read_json(path: Path) -> list[Any]:
    text = path.read_text(encoding="utf-8-sig")
    try:
        content = from_json(text)
    except json.JSONDecodeError:
        if len(lines_of(text)) > 1 and _is_json(lines_of(text)[0]):
            return _read_jsonl(path)  # objects one a line, under the ending of the other format
        raise
    rows = _rows_of(content)
    if rows is None:
        raise InputError(
            f"{path} must hold a JSON list of prompts, or an object of equally long lists, one a "
            "column"
        )
    return rows


def _is_json(text: str) -> bool:
    try:
        return isinstance(from_json(text), dict)
    except json.JSONDecodeError:
        return False


def _rows_of(content: Any) -> list[Any] | None:
    """The rows of a JSON file: a list; an object of lists by column or by split, or with one list
    of rows; columns of values by index; rows by id. None where it is none of these."""
    if isinstance(content, list):
        return content
    if not isinstance(content, dict) or not content:
        return None
    names, values = list(content), list(content.values())
    lists = [value for value in values if isinstance(value, list)]
    if len(lists) < len(values) and all(isinstance(value, dict) for value in values):
        if any(name in USUAL_COLUMNS for name in names):  # columns, of values by index
            return [{n: content[n].get(i) for n in names} for i in values[0]]
        return [{"id": name, **row} for name, row in content.items()]
    if len(lists) == len(values) and {name.lower() for name in names} <= set(_SPLIT_NAMES):
        return [
            {**(row if isinstance(row, dict) else {"prompt": row}), SPLIT_COLUMN: name}
            for name, rows in content.items()
            for row in rows
        ]
    if _is_table(content):
        return [dict(zip(content["columns"], row, strict=True)) for row in content["data"]]
    if len(lists) == 1 and all(isinstance(row, dict) for row in lists[0]):
        return lists[0]
    if len(lists) == len(values) == 1:
        return [{names[0] if names[0] in USUAL_COLUMNS else "prompt": v} for v in lists[0]]
    if len(lists) == len(values) and len({len(rows) for rows in lists}) == 1:
        return [dict(zip(names, row, strict=True)) for row in zip(*lists, strict=True)]
    return None


def _is_table(content: Mapping[str, Any]) -> bool:
    """Whether an object holds the names of columns, and rows of as many values."""
    columns, rows = content.get("columns"), content.get("data")
    return (
        isinstance(columns, list)
        and isinstance(rows, list)
        and all(isinstance(row, list) and len(row) == len(columns) for row in rows)
    )


def _read_jsonl(path: Path) -> list[Any]:
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), start=1):
        if line.strip():
            try:
                rows.append(from_json(line))
            except json.JSONDecodeError as error:
                raise InputError(
                    f"{path} cannot be read (line {number}, column {error.colno}: {error.msg})"
                ) from None
    return rows


def _read_csv(path: Path) -> list[Any]:
    """Raises InputError for a row that has not as many cells as the header: a text with a comma or
    a line break that is not quoted would be taken for a shorter one."""
    text = path.read_text(encoding="utf-8-sig")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header, *rows = [row for row in reader if row] or [[]]
    except csv.Error as error:
        raise InputError(
            f"{path} cannot be read (line {reader.line_num}: {error}): {_QUOTED}"
        ) from None
    if twice := [name for name, count in Counter(header).items() if name and count > 1]:
        raise InputError(f"{path} has two columns {twice[0]!r}: rename one")
    for number, row in enumerate(rows, start=1):
        if len(row) != len(header):
            raise InputError(
                f"{path}, row {number} has {len(row)} cells and the header {len(header)}: {_QUOTED}"
            )
    return [dict(zip(header, row, strict=True)) for row in rows]


def _read_txt(path: Path) -> list[Any]:
    return lines_of(path.read_text(encoding="utf-8-sig"))


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
