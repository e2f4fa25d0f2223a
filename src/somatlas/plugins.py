"""What can be chosen by name: classes of this package and, by entry points, of other packages.

A class's own settings are what its constructor takes: names, types (`typing.Annotated` with a
`pydantic.Field` for bounds) and defaults are read from the signature.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Collection, Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, Generic, TypeVar, get_type_hints

from somatlas.errors import InputError

if TYPE_CHECKING:  # a list of names needs no validation library
    from pydantic import BaseModel

T = TypeVar("T")


class Registry(Generic[T]):
    """Classes by name.

    what : the noun for messages ("method"). group : of the entry points that other packages add
    (`[project.entry-points."somatlas.methods"]`). base : the class that all derive from, and
    built_in : name -> class, both as "module:Class", so that a list of names imports none of them.
    """

    def __init__(self, what: str, group: str, base: str, built_in: Mapping[str, str]) -> None:
        self.what, self.group, self.base = what, group, base
        self.built_in = dict(built_in)

    def names(self) -> list[str]:
        """Every name: those of this package in their order, then those of others. Imports none."""
        return list(dict.fromkeys([*self.built_in, *(one.name for one in claims(self.group))]))

    def check(self, name: str) -> None:
        """Raise InputError, with every known name, where this is none of them."""
        if name not in self.names():
            raise InputError(
                f"there is no {self.what} {name!r}: it must be one of {', '.join(self.names())}, "
                f"or an installed package's (entry points {self.group!r})"
            )

    def get(self, name: str) -> type[T]:
        """The class of a name.

        Raises InputError for a name that is not known, is claimed twice, or whose package cannot
        be imported or is no class of the right kind.
        """
        self.check(name)
        others = [point for point in claims(self.group) if point.name == name]
        if name in self.built_in:
            if others:
                raise InputError(
                    f"{self.what} {name!r} is this package's own, and {others[0].value} claims the "
                    "name too: remove that package, or rename it there"
                )
            return _imported(self.built_in[name])  # type: ignore[no-any-return]
        if len(others) > 1:
            both = " and ".join(point.value for point in others)
            raise InputError(f"{self.what} {name!r} is claimed by {both}: remove one package")
        found = loaded(others[0], self.what)
        if not (isinstance(found, type) and issubclass(found, _imported(self.base))):
            raise InputError(
                f"{self.what} {name!r} ({others[0].value}) must be a class that derives from "
                f"{self.base.replace(':', '.')}"
            )
        if (own := getattr(found, "name", name)) != name:
            raise InputError(
                f"{others[0].value} calls itself {own!r}, its entry point {name!r}: "
                "give both one name"
            )
        return found


def own_settings(
    what: str, name: str, cls: type, given: Mapping[str, Any], taken: Collection[str] = ()
) -> dict[str, Any]:
    """The settings that a class has for itself, whole: those given, validated, and its defaults.

    Values are plain JSON ones, so that they can be recorded; texts, as a command gives them, become
    what the signature says. taken : parameters of the constructor that are filled otherwise.
    Raises InputError for the first that is unknown, wrong or missing.
    """
    from pydantic import ValidationError

    model = _model(cls, frozenset(taken))
    known = ", ".join(model.model_fields) or "none"
    try:
        return model(**given).model_dump(mode="json")
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0])
        if first["type"] == "extra_forbidden":
            raise InputError(f"{what} {name!r} has no setting {key!r}: it has {known}") from None
        if first["type"] == "missing":
            raise InputError(f"{what} {name!r} needs its setting {key!r}: give it") from None
        raise refused(f"{what} {name!r}", key, given[key], first["msg"]) from None


def refused(owner: str, key: str, value: Any, reason: str) -> InputError:
    """What is raised where a setting cannot be that value, for pydantic's reason."""
    said = reason.removeprefix("Value error, ")
    return InputError(
        f"setting {key!r} of {owner} cannot be {value!r}: {said[0].lower()}{said[1:]}"
    )


def parameters_of(cls: type) -> dict[str, inspect.Parameter]:
    """The parameters of a class's constructor by name.

    Raises TypeError where it takes *args or **kwargs: what it can be told would not be known.
    """
    found = dict(inspect.signature(cls).parameters)
    for parameter in found.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise TypeError(f"{cls.__name__} must name its parameters, without {parameter}")
    return found


def _imported(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)


def claims(group: str) -> list[EntryPoint]:
    """Other packages' entry points of a group, each once, though a package may be found twice."""
    return _claims(group, tuple(sys.path))


def loaded(point: EntryPoint, what: str) -> Any:
    """What an entry point names; raises InputError where its package cannot be imported."""
    try:
        return point.load()
    except Exception as error:  # whatever another package's import raises
        raise InputError(
            f"{what} {point.name!r} ({point.value}) cannot be imported "
            f"({type(error).__name__}: {error})"
        ) from error


@cache
def _claims(group: str, _path: tuple[str, ...]) -> list[EntryPoint]:
    """Read again where the import path changes."""
    found = {(point.name, point.value): point for point in entry_points(group=group)}
    return [found[key] for key in sorted(found)]


@cache
def _model(cls: type, taken: frozenset[str]) -> type[BaseModel]:
    from pydantic import ConfigDict, create_model

    from somatlas.records import NoBooleans

    hints = get_type_hints(cls.__init__, include_extras=True)  # type: ignore[misc]
    fields: dict[str, Any] = {
        name: (hints.get(name, Any), ... if one.default is one.empty else one.default)
        for name, one in parameters_of(cls).items()
        if name not in taken
    }

    class Settings(NoBooleans):
        model_config = ConfigDict(extra="forbid", allow_inf_nan=False, arbitrary_types_allowed=True)

    return create_model(f"{cls.__name__}Settings", __base__=Settings, **fields)
