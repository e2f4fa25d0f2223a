"""Axes of a sweep: settings with several values each, as `--over k=1-7` gives them."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from somatlas.errors import InputError
from somatlas.runs.settings import Config

_RANGE = re.compile(r"(\d+)-(\d+)")
_MOST = 10_000  # values of a range
_LONGEST = 40  # characters of a value in a folder's name


@dataclass(frozen=True)
class Axis:
    """A setting and its values, as a user writes them."""

    setting: str
    values: tuple[str, ...]


def parse_axes(texts: Sequence[str]) -> list[Axis]:
    """One axis of each text; raises InputError with everything that is wrong.

    A text is SETTING=VALUE,VALUE,... Values that hold commas are parted by semicolons; of a setting
    that is a whole number 1-7 is a value each.
    """
    axes: list[Axis] = []
    problems = []
    for text in texts:
        try:
            axis = _parse(text)
            if axis.setting in (other.setting for other in axes):
                raise InputError(f"--over {axis.setting} is given twice: name all values in one")
            axes.append(axis)
        except InputError as error:
            problems.append(str(error))
    raise_all(problems)
    return axes


def raise_all(problems: Sequence[str], shown: int = 6) -> None:
    """Raise one InputError with every problem once, the first of many; nothing where none is."""
    every = list(dict.fromkeys(problems))
    if every:
        more = [f"and {len(every) - shown} more"] if len(every) > shown else []
        raise InputError(*every[:shown], *more)


def combinations(axes: Sequence[Axis]) -> Iterator[dict[str, str]]:
    """Setting -> value of every point, the last axis fastest."""
    for values in itertools.product(*(axis.values for axis in axes)):
        yield dict(zip((axis.setting for axis in axes), values, strict=True))


def point_name(sweep: str, values: Mapping[str, str]) -> str:
    """The folder's name of a point: sweep_k=1_seed=0, apart for points that differ."""
    return "_".join([sweep, *(f"{setting}={_plain(text)}" for setting, text in values.items())])


def point_text(values: Mapping[str, str]) -> str:
    """A point as it is shown: k=1, seed=0."""
    return ", ".join(f"{setting}={text}" for setting, text in values.items())


def _parse(text: str) -> Axis:
    setting, sign, values = (part.strip() for part in text.partition("="))
    setting = setting.replace("-", "_")
    if not sign or not setting:
        raise InputError(f"--over {text!r} must be like k=1-7 or method=som,kmeans")
    if setting not in Config.model_fields:
        raise InputError(
            f"--over {text!r}: there is no setting {setting!r}: see somatlas run --help"
        )
    if setting == "model" or Config.stage_of(setting) is None:
        raise InputError(
            f"--over {setting}: only settings that decide a run's result can be swept, on one model"
        )
    given = [v.strip() for v in values.split(";" if ";" in values else ",")]
    expanded = [value for one in given for value in _expanded(setting, one)]
    if "" in expanded:
        raise InputError(f"--over {text!r} has an empty value")
    if twice := [v for n, v in enumerate(expanded) if v in expanded[:n]]:
        raise InputError(f"--over {text!r} has the value {twice[0]} twice")
    return Axis(setting, tuple(expanded))


def _expanded(setting: str, value: str) -> list[str]:
    if not _is_whole_number(setting):
        return [value]
    match = _RANGE.fullmatch(value)
    if match is None:
        return [str(int(value)) if value.isdecimal() else value]  # 01 is 1
    first, last = int(match[1]), int(match[2])
    if last < first:
        raise InputError(f"--over {setting}: {value} is no range from low to high")
    if last - first >= _MOST:
        raise InputError(f"--over {setting}: {value} has more than {_MOST} values")
    return [str(number) for number in range(first, last + 1)]


def _is_whole_number(setting: str) -> bool:
    schema = Config.model_json_schema()["properties"][setting]
    return {one.get("type") for one in schema.get("anyOf", [schema])} - {"null"} == {"integer"}


def _plain(text: str) -> str:
    """A value as a part of a folder's name; one that had to be changed has its digest behind."""
    plain = re.sub(r"[^\w.,+-]+", "-", text)
    if plain == text and len(text) <= _LONGEST:
        return text
    return f"{plain[:_LONGEST].strip('-')}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
