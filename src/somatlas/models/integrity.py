"""What a checkpoint lacked when it was loaded, and what of it nothing reads.

transformers fills a tensor that is missing with random values and says so in a report that it logs;
of tensors that an architecture is known not to read (`mtp.*`, blocks behind the last one) it says
nothing. Both are read here before it forgets them.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn
from transformers import PreTrainedModel

from somatlas.errors import InputError
from somatlas.files import from_json

_SHOWN = 3  # names of tensors in a sentence
_INDEX, _SINGLE = "model.safetensors.index.json", "model.safetensors"
# Kept by old checkpoints, computed anew by today's classes.
_DERIVED = re.compile(r"rotary_emb\.inv_freq$|(^|\.)position_ids$|attn\.(masked_)?bias$")
_PACKED_DTYPES = {"I8", "U8", "I16", "U16", "I32", "U32", "I64", "U64", "BOOL"}
_EIGHT_BITS = re.compile(r"F8|F4|F6")


@dataclass
class LoadReport:
    """Names of tensors: those that the model wanted and the checkpoint lacked; those of the
    checkpoint that no module took; those of another shape, with both shapes; and those that start
    with a value of their own where the class allows it. faults : of the library's conversions."""

    missing: set[str] = field(default_factory=set)
    unread: set[str] = field(default_factory=set)
    mismatched: list[tuple[str, Sequence[int], Sequence[int]]] = field(default_factory=list)
    allowed: set[str] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)

    def check(self, name: str, names: Collection[str]) -> None:
        """Raise InputError naming what a model would have run without; names : of the tensors in
        its files, of which several may be put together into one of the model's."""
        wrong = sorted(key for key, _, _ in self.mismatched) or sorted(self.missing)
        if wrong and (lacking := gaps(names)):
            raise InputError(
                f"{name} lacks weights that it needs: {some(lacking)}, of which {wrong[0]} is "
                "made: fetch it again"
            )
        if self.mismatched:
            key, stored, wanted = sorted(self.mismatched)[0]
            raise InputError(
                f"{name} does not fit its configuration: {key} has the shape "
                f"{_shape(stored)}, {_shape(wanted)} is wanted"
                + _more(len(self.mismatched) - 1)
                + ": config.json or the weights are another model's"
            )
        if self.missing:
            unread = f"; nothing reads {some(self.unread)}" if self.unread else ""
            raise InputError(
                f"{name} lacks weights that it needs: {some(self.missing)}{unread}: it would run "
                "with random values in their place; fetch it again, or mend config.json"
            )
        if self.faults:
            raise InputError(f"the weights of {name} cannot be converted: {self.faults[0][:300]}")


@contextmanager
def load_report() -> Iterator[LoadReport]:
    """While active, the report of what transformers loads; of the last model, if several."""
    report = LoadReport()
    adjust = PreTrainedModel._adjust_missing_and_unexpected_keys

    def recorded(model: PreTrainedModel, info: Any) -> None:
        wanted = set(info.missing_keys)
        report.unread = {key for key in info.unexpected_keys if not _DERIVED.search(key)}
        adjust(model, info)
        report.missing = set(info.missing_keys)
        report.allowed = wanted - report.missing
        report.mismatched = list(info.mismatched_keys)
        report.faults = [*info.error_msgs, *info.conversion_errors.values()]

    PreTrainedModel._adjust_missing_and_unexpected_keys = recorded
    try:
        yield report
    finally:
        PreTrainedModel._adjust_missing_and_unexpected_keys = adjust


def gaps(names: Collection[str]) -> set[str]:
    """Tensors that are lacking in numbered rows of modules (experts) where their like are there.

    A row is told by its parts up to the last number: each of its members has the same tensors.
    """
    rows: dict[str, dict[str, set[str]]] = {}
    for name in names:
        parts = name.split(".")
        numbers = [i for i, part in enumerate(parts) if part.isdigit()]
        if len(numbers) > 1:  # the first counts blocks, which may differ
            last = numbers[-1]
            row = rows.setdefault(".".join(parts[:last]), {})
            row.setdefault(parts[last], set()).add(".".join(parts[last + 1 :]))
    return {
        f"{row}.{member}.{inner}"
        for row, members in rows.items()
        for member, own in members.items()
        for inner in set().union(*members.values()) - own
    }


class Stored(NamedTuple):
    """Where a tensor lies: its file, and its format and shape by the file's header."""

    file: Path
    dtype: str
    shape: tuple[int, ...]


def stored_tensors(folder: Path) -> dict[str, Stored]:
    """Every tensor of a folder's safetensors checkpoint, from the headers alone.

    Raises InputError where a header cannot be read.
    """
    files = [folder / _SINGLE]
    if not files[0].is_file():
        index = folder / _INDEX
        names = read_json_file(index)["weight_map"].values() if index.is_file() else ()
        files = [folder / name for name in sorted(set(names))]
    found: dict[str, Stored] = {}
    for file in files:
        if file.is_file():
            header = _header(file)
            found |= {
                key: Stored(file, str(one["dtype"]), tuple(one["shape"]))
                for key, one in header.items()
                if key != "__metadata__"
            }
    return found


def read_json_file(path: Path) -> dict[str, Any]:
    """A JSON object of a checkpoint's folder; raises InputError where it is damaged."""
    try:
        content = from_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is damaged ({error}): fetch it again") from None
    if not isinstance(content, dict | list):
        raise InputError(f"{path} is damaged (no JSON object): fetch it again")
    return content  # type: ignore[return-value]


def check_files(folder: Path) -> None:
    """Raise InputError where a JSON file that belongs to a checkpoint is damaged: transformers
    takes a generation config or a template's file that it cannot read for one that is not there."""
    for path in sorted(folder.glob("*.json")):
        read_json_file(path)


def format_notes(stored: dict[str, Stored], *, quantised: bool) -> list[str]:
    """What is odd in how values are stored, a sentence each.

    Raises InputError where packed values would be taken for weights: integers, or 8-bit floats
    with scales beside them, without a quantisation in the configuration.
    """
    if quantised:
        return []
    matrices = {key: one for key, one in stored.items() if len(one.shape) > 1}
    eight = {key for key, one in matrices.items() if _EIGHT_BITS.match(one.dtype)}
    packed = {
        key
        for key, one in stored.items()
        if one.dtype in _PACKED_DTYPES and (key in matrices or key.endswith(("weight", "bias")))
    }
    scales = {key for key in stored if re.search(r"scale(_inv|s)?$|absmax$|zeros$", key)}
    if packed or (eight and scales):
        odd = sorted(packed or eight)
        raise InputError(
            f"{some(odd)} {'is' if len(odd) == 1 else 'are'} stored as {stored[odd[0]].dtype} and "
            "config.json names no quantisation: the values would be taken for weights; add its "
            "quantization_config, or convert it"
        )
    notes = []
    usual = max((one.dtype for one in matrices.values()), key=_count(matrices), default="")
    odd_ones: dict[str, list[str]] = {}
    for key, one in matrices.items():
        if one.dtype != usual or key in eight:
            odd_ones.setdefault(one.dtype, []).append(key)
    for dtype, keys in odd_ones.items():
        rest = f", the rest as {usual}" if dtype != usual else ""
        rounded = ": values of 2 or 3 significant bits" if keys[0] in eight else ""
        notes.append(f"{some(keys)} stored as {dtype}{rest}{rounded}")
    return notes


def value_notes(model: nn.Module) -> list[str]:
    """Tensors that look lost, a sentence each: matrices whose values are all alike, vectors of
    zeros where the same vector of other blocks has values, and values that are not finite."""
    flat, broken = [], []
    zeros: dict[str, list[str]] = {}
    alive: set[str] = set()
    for key, tensor in model.named_parameters():
        if tensor.is_meta or tensor.numel() < 2 or tensor.dtype.itemsize < 2:
            continue
        low, high = tensor.detach().aminmax()
        if not (low.isfinite() and high.isfinite()):
            broken.append(key)
        elif tensor.ndim > 1 and low == high:
            flat.append(key)
        elif tensor.ndim == 1:
            like = ".".join("*" if part.isdigit() else part for part in key.split("."))
            if low == high == 0:
                zeros.setdefault(like, []).append(key)
            else:
                alive.add(like)
    lost = [key for like, keys in zeros.items() if like in alive for key in keys]
    notes = [f"every value of {some(flat)} is the same: nothing was learnt there"] if flat else []
    notes += [f"{some(lost)} is zero, and not so in other blocks"] if lost else []
    return notes + ([f"{some(broken)} holds NaN or infinite values"] if broken else [])


def some(names: Collection[str]) -> str:
    """A few of the names, and how many there are."""
    first = sorted(names)[:_SHOWN]
    return ", ".join(first) + _more(len(names) - len(first))


def _more(count: int) -> str:
    return f" and {count} more" if count > 0 else ""


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "of a single value"


def _count(stored: dict[str, Stored]) -> Any:
    values = [one.dtype for one in stored.values()]
    return values.count


def _header(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as opened:
            (length,) = struct.unpack("<Q", opened.read(8))
            if length > file.stat().st_size:
                raise ValueError("its header is cut off")
            return dict(from_json(opened.read(length)))
    except (OSError, ValueError, struct.error) as error:
        raise InputError(f"the weights in {file} are damaged ({error}): fetch them again") from None
