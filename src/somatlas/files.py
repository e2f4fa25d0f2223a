"""Reading and writing files so that a reader never sees half a one."""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from somatlas.arguments import path_of
from somatlas.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

K = TypeVar("K", bound=str | int)
V = TypeVar("V")

_METADATA_KEY = "somatlas"


_told: list[Callable[[Path], None]] = []


def tell_of_changes(listener: Callable[[Path], None]) -> None:
    """From now on have a function called with every file that this module has written whole,
    made longer or removed."""
    _told.append(listener)


def changed(path: Path) -> None:
    """Tell of a file that was changed by other means."""
    for listener in _told:
        listener(path)


def remove(path: Path) -> None:
    """Remove a file that may be gone."""
    path.unlink(missing_ok=True)
    changed(path)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, renamed to it when the block ends well, removed otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path)
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    changed(path)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path`, renamed to it when the block ends well, else removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path)
    shutil.rmtree(temporary, ignore_errors=True)  # of one killed here before: ids come again
    temporary.mkdir()
    try:
        yield temporary
        temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _beside(path: Path) -> Path:
    """A name that no other process has, on whichever machine that shares the folder."""
    return path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}.part")


def read_text(path: Path, what: str) -> str:
    """The text of a user's file, without a byte-order mark; line ends become \\n.

    Raises InputError, saying `what` it is, where it cannot be read as UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{what} {path} cannot be read ({error})") from None


def lines_of(text: str) -> list[str]:
    """The lines of a text, blank ones left out: only a line feed ends one, not U+2028 or a form
    feed, which `str.splitlines` takes for line ends too."""
    return [line for line in text.split("\n") if line.strip()]


def writable(text: str) -> str:
    """The text as UTF-8 can write it: half of a character becomes a question mark."""
    return text.encode("utf-8", "replace").decode()


def from_json(text: str | bytes) -> Any:
    """What a JSON text says; all that Python cannot make anything of is a JSONDecodeError, deep
    nesting and numbers of thousands of digits too."""
    try:
        return json.loads(text)
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise
    except RecursionError:
        reason = "it is nested too deep"
    except ValueError as error:
        reason = str(error)
    raise json.JSONDecodeError(reason, "", 0)


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8, all or nothing."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write indented JSON, all or nothing."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object a line, all or nothing."""
    lines = [json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows]
    write_text(path, "".join(lines))


def append_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Add JSON objects in one write, a line each, even behind one that a killed writer cut
    short."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            torn = file.read() != b"\n"
            file.write(b"\n" * torn)
        file.write(_lines(rows))
    changed(path)


def rewrite_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Have a file that `append_rows` has made hold these rows and nothing else, all or nothing."""
    content = _lines(rows)
    if content != path.read_bytes():
        with atomic_file(path) as temporary:
            temporary.write_bytes(content)


def _lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def appended_rows(path: Path) -> list[dict[str, Any]]:
    """The objects that `append_rows` has added; lines that were cut short are left out."""
    rows = []
    if path.exists():
        for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
            try:
                row = from_json(line)
            except json.JSONDecodeError:
                continue
            if isinstance(row, dict):
                rows.append(row)
    return rows


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Rows of a JSONL file; raises InputError where it is missing or damaged."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
        return [from_json(line) for line in lines if line]
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}): make it again") from None


class JsonlCache(Generic[K, V]):
    """Values by key in a file that grows by a line each, for several threads; a later line wins.

    What a killed writer cut short, or what `decode` cannot read, is left out, and so made again.

    path : the file; None keeps the values in memory alone. encode : the fields of a value's line,
    plain JSON. decode : the value of such a line; its KeyError, TypeError or ValueError means that
    it holds none. key : the name of the field that holds the key.
    """

    def __init__(
        self,
        path: Path | None,
        encode: Callable[[V], Mapping[str, Any]],
        decode: Callable[[Mapping[str, Any]], V],
        key: str = "key",
    ) -> None:
        self.path, self.key = path, key
        self._encode, self._lock = encode, Lock()
        self._known: dict[K, V] = {}
        for row in [] if path is None else appended_rows(path):
            try:
                self._known[row[key]] = decode(row)
            except (KeyError, TypeError, ValueError):
                continue

    def __contains__(self, key: K) -> bool:
        return key in self._known

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: K) -> V | None:
        """The value under the key, None where there is none."""
        return self._known.get(key)

    def all(self) -> dict[K, V]:
        """Every value by its key, in the order they came."""
        return dict(self._known)

    def put(self, values: Mapping[K, V]) -> None:
        """Keep values, with one write of the file."""
        with self._lock:
            self._known.update(values)
            if self.path is not None:
                rows = [{self.key: key, **self._encode(value)} for key, value in values.items()]
                append_rows(self.path, rows)

    def arrange(self, order: Callable[[K, V], Any]) -> None:
        """Put the values in order, in the file too, which then holds each once."""
        with self._lock:
            known = self._known
            self._known = {
                key: known[key] for key in sorted(known, key=lambda k: order(k, known[k]))
            }
            if self.path is None or not self.path.exists():
                return
            rewrite_rows(
                self.path, [{self.key: k, **self._encode(v)} for k, v in self._known.items()]
            )

    def forget(self, key: K) -> None:
        """Leave a value out, to be made again; the file has it until the key is put anew."""
        with self._lock:
            self._known.pop(key, None)

    def drop(self) -> None:
        """Remove the file and forget the values."""
        with self._lock:
            self._known.clear()
            if self.path is not None:
                remove(self.path)


def read_json(path: Path) -> Any:
    """Parse a JSON file; raises InputError naming the file where that fails."""
    try:
        return from_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path} cannot be read as JSON ({error})") from None


def write_tensors(
    path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> None:
    """Write tensors as safetensors, all or nothing.

    The metadata is one JSON text under one key: safetensors writes several keys in random order,
    and equal runs must give equal files.
    """
    from safetensors import SafetensorError  # here: who reads verdicts needs no torch
    from safetensors.torch import save_file

    path = path_of("path", path)
    described = {_METADATA_KEY: json.dumps(metadata, sort_keys=True)}
    with atomic_file(path) as temporary:
        contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
        try:
            save_file(contiguous, temporary, metadata=described)
        except SafetensorError as error:
            raise InputError(f"{path} cannot be written ({error})") from None


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors of a safetensors file and its metadata; raises InputError where it is damaged."""
    from safetensors import SafetensorError, safe_open

    path = path_of("path", path)
    if not path.is_file():
        raise InputError(f"{path} {'is a folder' if path.is_dir() else 'does not exist'}")
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            described = (file.metadata() or {}).get(_METADATA_KEY, "{}")
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{path} is not a whole safetensors file ({error}): make it again"
        ) from None
    try:
        metadata = from_json(described)
    except json.JSONDecodeError:
        metadata = None
    texts = metadata.values() if isinstance(metadata, dict) else [None]
    if not all(isinstance(value, str) for value in texts):
        raise InputError(
            f"the metadata of {path} is no JSON object of texts ({described!r:.60}): make it again"
        )
    return tensors, metadata
