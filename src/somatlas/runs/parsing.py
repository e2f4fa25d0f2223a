"""How lists, pairs, ranges and names are written in a flag, a variable or a line of TOML.

A `ValueError` says what a value must be, in words that follow "setting 'grid' cannot be '4': ".
"""

from __future__ import annotations

import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any

from somatlas.errors import without_password
from somatlas.files import from_json

_LARGEST = 9999  # of a range's numbers: no model has so many layers


def grid(text: str) -> list[str]:
    """
    >>> grid("4x4")
    ['4', '4']
    """
    return text.lower().split("x")


def items(text: str) -> list[str]:
    """
    >>> items("0,3,")
    ['0', '3']
    """
    return [item for item in text.split(",") if item]


def ranges(text: str) -> list[int]:
    """
    >>> ranges("3,8-10")
    [3, 8, 9, 10]
    """
    numbers: list[int] = []
    for item in text.split(","):
        first, _, last = item.partition("-")
        if not (first.isdecimal() and (last or first).isdecimal()):
            raise ValueError("must be like 8-24 or 3,7,12")
        if int(last or first) > _LARGEST:
            raise ValueError(f"must be numbers up to {_LARGEST}")
        numbers += range(int(first), int(last or first) + 1)
    return numbers


def pairs(text: str) -> dict[str, str]:
    """
    >>> pairs("LABEL_0=refused, LABEL_1=complied")
    {'LABEL_0': 'refused', 'LABEL_1': 'complied'}
    """
    parts = [item.partition("=") for item in text.split(",") if item]
    if not parts or not all(name and sign and meaning for name, sign, meaning in parts):
        raise ValueError("must be like NAME=VALUE,NAME=VALUE")
    return {name.strip(): meaning.strip() for name, _, meaning in parts}


def nested_pairs(text: str) -> dict[str, dict[str, Any]]:
    """
    >>> nested_pairs("length.fewest=8,length.unit=words")
    {'length': {'fewest': 8, 'unit': 'words'}}
    """
    parsed: dict[str, dict[str, Any]] = {}
    for item in filter(None, text.split(",")):
        place, sign, value = item.partition("=")
        kind, dot, name = place.strip().partition(".")
        if not (sign and dot and kind and name):
            raise ValueError("must be like KIND.SETTING=VALUE,KIND.SETTING=VALUE")
        try:
            parsed.setdefault(kind, {})[name] = from_json(value)
        except json.JSONDecodeError:  # not a number, true or false
            parsed.setdefault(kind, {})[name] = value.strip()
    return parsed


def known_layers(value: tuple[int, ...] | None) -> tuple[int, ...] | None:
    """
    >>> known_layers((7, 3, 7))
    (3, 7)
    """
    if value is not None and (not value or min(value) < 0):
        raise ValueError("must name at least one layer, from 0 on")
    return None if value is None else tuple(sorted(set(value)))


def whole_or_share(value: float | None) -> float | None:
    """A number of devices: a share of one, or several whole ones."""
    if value is not None and value > 1 and value != int(value):
        raise ValueError("must be a share of a GPU, as 0.5, or a whole number of them")
    return value


def known_conditions(value: dict[str, str] | None) -> dict[str, str] | None:
    """What has names of conditions."""
    if value is not None and not set(value) <= {"base", "sd", "md"}:
        raise ValueError("must name conditions among base, sd and md")
    return value


def day(value: str) -> str:
    """
    >>> day("2024-07-26")
    '2024-07-26'
    """
    try:
        return datetime.strptime(value, "%Y-%m-%d").date().isoformat()
    except ValueError:
        raise ValueError("must be a day as YYYY-MM-DD") from None


def plain_name(value: str) -> str:
    """A name that is one folder's, on every system."""
    if not value or value.startswith(".") or set(value) & set('/\\:*?"<>|'):
        raise ValueError("must be a plain folder name, which begins with no dot")
    return value


def is_url(text: str) -> bool:
    """
    >>> is_url("s3://bucket/runs"), is_url("runs"), is_url("C:/runs")
    (True, False, False)
    """
    return re.match(r"[A-Za-z][\w+.:-]+://", text) is not None


def folder_or_url(text: str) -> Path | str:
    """
    >>> folder_or_url("s3://bucket/runs/"), folder_or_url("runs") == Path("runs")
    ('s3://bucket/runs', True)
    """
    if not text.strip():
        raise ValueError("must name a folder, as ., or a URL")
    if not is_url(text):
        return Path(text)
    if not re.search(r"://[^/]", text) and not text.startswith("file:///"):
        raise ValueError("must name a place behind the protocol, as s3://bucket/runs")
    if without_password(text) != text:
        raise ValueError(
            "must not hold a password: leave it to the environment or the credentials file that "
            "the protocol's package reads"
        )
    if "::" in text:
        raise ValueError("must be one URL, without '::'")
    return text.rstrip("/")
