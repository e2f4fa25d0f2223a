"""Records: what a run's JSON files hold, typed, with the version of their form."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from somatlas.errors import InputError
from somatlas.files import read_json, write_json

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
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or "its content"
            raise InputError(
                f"{source} is not as this version of somatlas writes it ({place}: "
                f"{first['msg'][0].lower()}{first['msg'][1:]}): make it again"
            ) from None

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
