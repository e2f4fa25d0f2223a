"""How one setting is declared, and what its type says of how it is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

from annotated_types import Ge

if TYPE_CHECKING:
    from somatlas.runs.fields import Stage

Count = Annotated[int, Ge(1)]


@dataclass(frozen=True)
class Setting:
    """One setting as it is declared.

    stage : the stage from which on it decides the outcome; None: it decides nothing.
    form : how a value is written, where its type does not say so (`RxC`).
    parse : text -> what is validated; raises ValueError, in words that follow "cannot be X: ".
    check : a validated value -> the same or a tidier one; raises ValueError likewise.
    names : what it can be, where other packages may add to it.
    more : what pydantic's Field is told besides: ge, gt, le, lt, validate_default.
    """

    stage: Stage | None
    default: Any
    description: str
    form: str | None = None
    parse: Callable[[str], Any] | None = None
    check: Callable[[Any], Any] | None = None
    names: Callable[[], Sequence[str]] | None = None
    more: Mapping[str, Any] | None = None


def of(
    stage: Stage | None,
    default: Any,
    description: str,
    *,
    form: str | None = None,
    parse: Callable[[str], Any] | None = None,
    check: Callable[[Any], Any] | None = None,
    names: Callable[[], Sequence[str]] | None = None,
    **more: Any,
) -> Any:
    """A field that decides the outcome from `stage` on (None: decides nothing): see `Setting`."""
    return Setting(stage, default, description, form, parse, check, names, more)


def listed(hint: Any) -> tuple[str, ...]:
    """The values that a type lists.

    >>> listed(Literal["on", "off"] | None)
    ('on', 'off')
    """
    hint = _bare(hint)
    return get_args(hint) if get_origin(hint) is Literal else ()


def form_of(hint: Any) -> str:
    """How a value of a type is written on the command line.

    >>> form_of(Count | None), form_of(tuple[int, ...]), form_of(Literal["on", "off"])
    ('INTEGER', 'INTEGER,...', '[on|off]')
    """
    hint = _bare(hint)
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return f"[{'|'.join(inner)}]"
    if origin is tuple:
        return f"{form_of(inner[0])},..."
    if origin is dict:
        return "NAME=VALUE,..."
    return {int: "INTEGER", float: "FLOAT", Path: "PATH"}.get(hint, "TEXT")


def _bare(hint: Any) -> Any:
    """A type without its `| None` and its bounds."""
    if NoneType in get_args(hint):
        (hint,) = (one for one in get_args(hint) if one is not NoneType)
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def shown(value: Any) -> str:
    """A default as it would be written.

    >>> shown((4, 4)), shown(0.01)
    ('4x4', '0.01')
    """
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)
