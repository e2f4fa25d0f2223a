"""Whence settings come: TOML files, a run's folder, the environment.

The later wins: defaults < a recipe < the run's own config.toml < a file < environment < flags. A
recipe that is not the folder's yet takes the place of its config.toml (`runs.folder.open_run`).
"""

from __future__ import annotations

import os
import tomllib
from difflib import get_close_matches
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from somatlas.errors import InputError
from somatlas.runs.fields import FIELDS

ENVIRONMENT_PREFIX = "SOMATLAS_"
_NO_SETTINGS = ("SOMATLAS_CACHE", "SOMATLAS_API_KEY")  # variables that are read elsewhere


def read_config_file(path: Path) -> dict[str, Any]:
    """The settings of a TOML file; a table [versions] in it is a record and no setting."""
    content = read_toml(path, "config file")
    content.pop("versions", None)
    return content


def read_run_settings(folder: Path) -> dict[str, Any]:
    """The settings of a run's folder; raises InputError where it is none."""
    path = folder / "config.toml"
    if not path.is_file():
        raise InputError(f"{folder} is no run folder: it has no config.toml")
    return read_config_file(path)


def read_toml(path: Path | Traversable, what: str) -> dict[str, Any]:
    """A TOML file as a dictionary; raises InputError, saying `what` it is, where that fails."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise InputError(f"{what} {path} does not exist") from None
    except RecursionError:
        raise InputError(f"{what} {path} cannot be read (it is nested too deep)") from None
    except (OSError, ValueError) as error:  # of which bad UTF-8 and bad TOML are
        raise InputError(f"{what} {path} cannot be read ({error})") from None


def from_environment() -> dict[str, str]:
    """Settings from variables such as SOMATLAS_BATCH_SIZE.

    Raises InputError for a variable of that form that is none and not otherwise known either: what
    was mistyped would be left out in silence.
    """
    names = {ENVIRONMENT_PREFIX + name.upper(): name for name in FIELDS}
    given = {k: v for k, v in os.environ.items() if k.startswith(ENVIRONMENT_PREFIX) and v}
    for key in sorted(given.keys() - names.keys() - set(_NO_SETTINGS)):
        near = get_close_matches(key, names, n=1)
        hint = f"did you mean {near[0]}?" if near else "see somatlas run --help"
        raise InputError(f"there is no setting for the variable {key}: unset it ({hint})")
    return {names[key]: value for key, value in given.items() if key in names}
