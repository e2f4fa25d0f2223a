"""`somatlas judge FILE`: verdicts on replies that another tool made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from somatlas.cli.options import Function, folders, given, option
from somatlas.errors import InputError

_SECTION = "A file of replies in MODEL's place"
_COLUMNS = ("prompt", "reply", "condition", "kind")


def columns(function: Function) -> Function:
    """Flags for a file of replies."""
    for flag, metavar, text in (
        ("--beside", "FOLDER", "folder of a judged run to put in the same table"),
        ("--kind-column", "NAME", "column that says harmful, harmless or borderline"),
        ("--condition-column", "NAME", "column that parts the rows, such as the method"),
        ("--reply-column", "NAME", "column that holds the reply"),
        ("--prompt-column", "NAME", "column of a file of replies that holds the request"),
    ):
        complete = folders if metavar == "FOLDER" else None
        function = option(
            flag, section=_SECTION, metavar=metavar, help=text, shell_complete=complete
        )(function)
    return function


def judged_file(config: Path | None, flags: dict[str, Any]) -> bool:
    """Judge a file of replies, if that is what was named; the flags for it are taken out."""
    from somatlas.runs.folder import run_at
    from somatlas.runs.judged_file import SUFFIXES, Columns, check_read, judge_file
    from somatlas.runs.setting_sources import from_environment, read_config_file
    from somatlas.runs.settings import Config

    named = {name: flags.pop(f"{name}_column") for name in _COLUMNS}
    beside, path = flags.pop("beside"), Path(flags.get("model") or "")
    if path.suffix.lower() not in SUFFIXES:
        if any(value is not None for value in (beside, *named.values())):
            raise InputError("columns and --beside are for a file of replies: name one")
        if path.is_file() and path.suffix.lower() != ".gguf":
            endings = ", ".join(ending[1:] for ending in SUFFIXES)
            raise InputError(f"{path} is no model, and by its ending no file of replies: {endings}")
        return False
    settings = {name: value for name, value in given(flags).items() if name != "model"}
    file = read_config_file(config) if config else {}
    merged = Config.merged(file, from_environment(), settings)
    check_read(merged, settings, beside is not None)
    run = None if beside is None else run_at(beside, whole=True)
    click.echo(judge_file(path, Columns(**named), merged, run))
    return True
