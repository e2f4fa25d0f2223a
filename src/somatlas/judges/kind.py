"""What a kind of judge is: its name, what it is told, and how a judge of it is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import ConfigDict, Field, ValidationError

from somatlas.errors import InputError
from somatlas.judges.verdict import Judge
from somatlas.plugins import refused
from somatlas.records import NoBooleans

_ANY: dict[str, Any] = {}


class JudgeSettings(NoBooleans):
    """What a kind of judge can be told. Fields made by `shared` are settings of the command that
    other judges may read too; the rest are the kind's own (`--judge-settings KIND.FIELD=VALUE`)."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def shared(setting: str, default: Any, description: str, **constraints: Any) -> Any:
    """A field of `JudgeSettings` that the command's setting of this name gives, where it is given.

    default : for Python, and where the command's is not given; ... for one that must be.
    """
    return Field(
        default, description=description, json_schema_extra={"setting": setting}, **constraints
    )


S = TypeVar("S", bound=JudgeSettings)


@dataclass(frozen=True)
class Asked(Generic[S]):
    """What a judge is made of.

    argument : what stands behind the colon of its name, such as a model; empty where the kind takes
    none. cache : a file that may keep what was costly to ask for; None keeps nothing.
    """

    argument: str
    settings: S
    cache: Path | None = None


@dataclass(frozen=True)
class JudgeKind(Generic[S]):
    """A kind of judge, as the registry lists it.

    name : what a user calls it, before the colon. title : what it is, in a few words, for help.
    settings : what it can be told. make : makes a judge; what it needs to import, it imports there,
    for all kinds are imported to be listed. argument : what stands behind the colon, as help shows
    it; None where nothing does. check : tries what can be tried without loading a model, and raises
    InputError with all that is wrong. tells_babble : its judges tell answers from babble and from
    talk of something else themselves, so the coherence check is left out. keeps_answers : they
    write to the cache, so that runs cannot share them.
    """

    name: str
    title: str
    settings: type[S]
    make: Callable[[Asked[S]], Judge]
    argument: str | None = None
    check: Callable[[Asked[S]], None] | None = None
    tells_babble: bool = False
    keeps_answers: bool = False

    @property
    def form(self) -> str:
        """How a judge of it is named: keyword, classifier:MODEL."""
        return self.name if self.argument is None else f"{self.name}:{self.argument}"

    @property
    def shared(self) -> dict[str, str]:
        """Field -> the command's setting that gives it."""
        extras = {n: f.json_schema_extra for n, f in self.settings.model_fields.items()}
        return {n: str(e["setting"]) for n, e in extras.items() if isinstance(e, dict)}

    @property
    def own(self) -> list[str]:
        """The fields that are this kind's alone."""
        return [name for name in self.settings.model_fields if name not in self.shared]

    def parse(self, spec: str) -> str:
        """The argument of a judge's name; raises InputError where it is none of this kind."""
        name, colon, argument = spec.partition(":")
        takes = self.argument is not None
        if name != self.name or bool(colon) != takes or bool(argument) != takes:
            raise InputError(f"judge {spec!r} must be {self.form} for the {self.title}")
        return argument

    def told(self, values: Mapping[str, Any], own: Mapping[str, Any] = _ANY) -> S:
        """The kind's settings.

        values : the command's, by name; those that no field reads are left out, and None is what
        was not given. own : the kind's own, by field. Raises InputError for what is missing, not
        known or cannot be.
        """
        for field in own:
            if field in self.shared:
                raise InputError(
                    f"setting {field!r} of judge kind {self.name!r} is given as "
                    f"--{_flag(self.shared[field])}"
                )
            if field not in self.own:
                raise InputError(
                    f"judge kind {self.name!r} has no setting {field!r} of its own: it has "
                    f"{', '.join(self.own) or 'none'}"
                )
        found = {field: values.get(setting) for field, setting in self.shared.items()}
        given = {**{f: value for f, value in found.items() if value is not None}, **own}
        try:
            return self.settings(**given)
        except ValidationError as error:
            first = error.errors()[0]
            field = str(first["loc"][0]) if first["loc"] else ""
            if first["type"] == "missing":
                flag = self.shared.get(field)
                how = f"--{_flag(flag)}" if flag else f"--judge-settings {self.name}.{field}=VALUE"
                description = self.settings.model_fields[field].description or field
                raise InputError(
                    f"judge kind {self.name!r} needs {description}: give {how}"
                ) from None
            owner = f"judge kind {self.name!r}"
            raise refused(owner, field, given.get(field), first["msg"]) from None


def _flag(setting: str) -> str:
    return setting.replace("_", "-")
