"""What a caller gives, checked where it comes in: each function raises InputError in one sentence.

The command's settings have bounds of their own (`somatlas.runs.fields`); these are Python's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any, get_args

from somatlas.errors import InputError


def check_whole(name: str, value: Any, least: int, below: int | None = None) -> None:
    """A whole number of at least `least`, and below `below` where that is given."""
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not whole or value < least:
        raise InputError(f"{name} must be a whole number of at least {least}, not {value!r}")
    if below is not None and value >= below:
        raise InputError(f"{name} must be below {below}, not {value}")


def check_real(
    name: str,
    value: Any,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
) -> None:
    """A finite number within the bounds given."""
    bounds = (("at least", least), ("above", above), ("at most", most))
    said = " and ".join(f"{words} {bound:g}" for words, bound in bounds if bound is not None)
    plain = not isinstance(value, bool)
    real = plain and isinstance(value, Real) and math.isfinite(value)
    if (
        not real
        or (least is not None and value < least)
        or (above is not None and value <= above)
        or (most is not None and value > most)
    ):
        raise InputError(f"{name} must be a number {said}".rstrip() + f", not {value!r}")


def check_choice(name: str, value: Any, choices: Sequence[Any]) -> None:
    """One of some names."""
    if value not in choices:
        raise InputError(f"{name} must be {' or '.join(map(str, choices))}, not {value!r}")


def check_kind(name: str, value: Any, kind: type | tuple[type, ...], give: str) -> None:
    """An object of a class. give : what to give, for the message."""
    if not isinstance(value, kind):
        raise InputError(f"{name} must be {give}, not {described(value)}")


def check_unicode(name: str, text: str) -> None:
    """A text that UTF-8 can write: half of a character is none, and no tokenizer takes it."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{name} holds {text[error.start]!r}, which is no whole character in UTF-8: take it out"
        ) from None


def whole_numbers(name: str, values: Any, give: str) -> tuple[int, ...]:
    """Whole numbers of a list, array or tensor, as Python's own. give : an example."""
    if hasattr(values, "tolist"):  # an array or a tensor
        values = values.tolist()
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise InputError(f"{name} must be a list of whole numbers, as {give}, not {values!r}")
    found = list(values)
    if not all(isinstance(one, Integral) and not isinstance(one, bool) for one in found):
        raise InputError(f"{name} must be a list of whole numbers, as {give}, not {found!r}")
    return tuple(map(int, found))


def path_of(name: str, value: Any) -> Path:
    """A path that is given as one, or as a text."""
    check_kind(name, value, (str, Path), "a path")
    return Path(value)


def check_no_boolean(value: Any, hint: Any) -> None:
    """Raise ValueError where a number was meant, by the type, and true or false stands for it:
    Python takes them for 1 and 0."""
    if not _takes_booleans(hint) and (found := _boolean_in(value)) is not None:
        raise ValueError(f"must be a number where {str(found).lower()} stands")


def _takes_booleans(hint: Any) -> bool:
    return hint in (bool, Any) or any(_takes_booleans(one) for one in get_args(hint))


def _boolean_in(value: Any) -> bool | None:
    """The first there is, in a list or a table too."""
    if isinstance(value, bool):
        return value
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, list | tuple):
        return None
    return next((found for one in value if (found := _boolean_in(one)) is not None), None)


def described(value: Any) -> str:
    """What a value is, in words for a message: a class by its name, short things as they are."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if value is None or isinstance(value, str | int | float):
        return repr(value)
    kind = type(value).__name__
    return f"{'an' if kind[0] in 'aeiouAEIOU' else 'a'} {kind}"
