"""Any run, read from Python."""

from __future__ import annotations

from pathlib import Path

from somatlas.arguments import check_kind
from somatlas.errors import InputError
from somatlas.runs.contents import Contents
from somatlas.runs.folder_kind import check_folder
from somatlas.runs.places import run_place


def open_run(folder: str | Path) -> Contents:
    """What a run's folder, or what is at its URL, holds: `.verdicts`, `.completions`,
    `.directions`, `.representations`, `.evaluation`, `.atlas` and the others of `Contents`, each
    read when it is asked for.

    Raises InputError where the folder is no run, or something else too, and for a URL that
    cannot be read.

        run = open_run("runs/smollm2-hardened/default")
        run.evaluation.test["md"]["asr"], run.to_frame()
    """
    check_kind("folder", folder, (str, Path), "a run's folder or its URL")
    contents = Contents(run_place(folder))
    check_folder(contents.folder, "run")
    if not contents.settings:
        raise InputError(f"{folder} is no run folder: its config.toml is empty")
    return contents
