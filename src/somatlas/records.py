"""Records: what a run's JSON files hold, typed, with the version of their form.

What is read of a file is checked here against its type, once, so that nobody behind meets a field
that is missing or of another kind: `Record.read`, `checked` (of any JSON value), `rows_of` (of a
JSONL file).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from somatlas.arguments import check_no_boolean
from somatlas.errors import InputError
from somatlas.files import read_json, read_jsonl, write_json

T = TypeVar("T")

VERSION = 1  # of all records together: raised when one of them changes its form


class Record(BaseModel):
    """A file's content. Fields keep their names from version to version; further ones may come.

    version : of the form. Files of somatlas 0.1.0 before there was one count as the first, where
    they have all the fields.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    file: ClassVar[str]

    version: int = VERSION

    @classmethod
    def parsed(cls, content: Any, source: str) -> Self:
        """A record of plain JSON values; raises InputError, naming the source and the first field
        that is not as it should be."""
        if isinstance(content, dict) and content.get("version", VERSION) != VERSION:
            raise InputError(
                f"{source} has form {content['version']!r}, which this version of somatlas does "
                f"not know (it knows {VERSION}): read it with the version that wrote it"
            )
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            raise _unlike(source, _first_of(error)) from None

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The record in a folder; raises InputError where it is missing, damaged or another's."""
        path = folder / cls.file
        return cls.parsed(read_json(path), str(path))

    @classmethod
    def read_if_there(cls, folder: Path) -> Self | None:
        """The same, or None where there is no such file."""
        return cls.read(folder) if (folder / cls.file).exists() else None

    def write(self, folder: Path) -> None:
        """Write the record into a folder, all or nothing."""
        write_json(folder / self.file, self.plain())

    def plain(self) -> dict[str, Any]:
        """Plain JSON values of all fields."""
        return self.model_dump(mode="json")


class NoBooleans(BaseModel):
    """A model that takes no true or false for a number, as Python does."""

    @field_validator("*", mode="before")
    @classmethod
    def _no_boolean(cls, value: Any, info: ValidationInfo) -> Any:
        check_no_boolean(value, cls.model_fields[info.field_name or ""].annotation)
        return value


class Form(BaseModel):
    """What is asked of a JSON object that is read as it is (`checked`); it may have further
    fields."""

    model_config = ConfigDict(extra="allow")

    def check_together(self, *names: str) -> None:
        """Raise ValueError where some of these fields are there, and not all with a value."""
        if self.model_fields_set & {*names} and None in (getattr(self, name) for name in names):
            *most, last = names
            raise ValueError(f"{', '.join(most)} and {last} must be numbers, or not be there")


class Interval(Form):
    """A mean with its interval."""

    mean: float
    low: float
    high: float


def like(form: Any) -> AfterValidator:
    """Of a field whose value stays plain JSON values, and is of a form: `Annotated[dict[str, Any],
    like(SomeForm)]`."""

    def check(value: Any) -> Any:
        try:
            _adapter(form).validate_python(value)
        except ValidationError as error:
            raise ValueError(_first_of(error)) from None
        return value

    return AfterValidator(check)


def checked(form: Any, content: Any, source: str) -> Any:
    """JSON values as they are, once they are of a type, such as a `Form` or a list of them.

    Raises InputError, naming the source and the first field that is not as it should be.
    """
    try:
        _adapter(form).validate_python(content)
    except ValidationError as error:
        raise _unlike(source, _first_of(error)) from None
    return content


def row_reader(kind: type[T]) -> Callable[[Mapping[str, Any]], T]:
    """What makes an object of a dataclass of a row's fields; a ValueError of what makes it says
    which field is missing, not known or of another kind."""
    adapter, names = _adapter(kind), {field.name for field in fields(kind)}  # type: ignore[arg-type]

    def read(row: Mapping[str, Any]) -> T:
        if unknown := set(row) - names:
            raise ValueError(f"{min(unknown)}: no such field is known")
        try:
            return adapter.validate_python(dict(row))  # type: ignore[no-any-return]
        except ValidationError as error:
            raise ValueError(_first_of(error)) from None

    return read


def rows_of(path: Path, kind: type[T], what: str) -> list[T]:
    """The rows of a JSONL file, one at least. what : a row is, for messages.

    Raises InputError where the file is missing, damaged, empty or another's, naming the line.
    """
    read, found = row_reader(kind), []
    for line, row in enumerate(read_jsonl(path), start=1):
        try:
            if not isinstance(row, Mapping):
                raise ValueError(f"it is {row!r:.40}")
            found.append(read(row))
        except ValueError as error:
            raise InputError(
                f"line {line} of {path} is no {what} ({error}): make the file again"
            ) from None
    if not found:
        raise InputError(f"{path} holds no {what}: make it again")
    return found


@cache
def _adapter(form: Any) -> TypeAdapter[Any]:
    return TypeAdapter(form)


def _first_of(error: ValidationError) -> str:
    """The first field that is wrong, and how."""
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"])) or "its content"
    reason = first["msg"].removeprefix("Value error, ")
    return f"{place}: {reason[0].lower()}{reason[1:]}"


def _unlike(source: str, reason: str) -> InputError:
    return InputError(
        f"{source} is not as this version of somatlas writes it ({reason}): make it again"
    )
