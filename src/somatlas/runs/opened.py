"""Any run, read from Python."""

from __future__ import annotations

from pathlib import Path

from somatlas.errors import InputError
from somatlas.runs.contents import Contents


def open_run(folder: str | Path) -> Contents:
    """What a run's folder holds: `.verdicts`, `.completions`, `.directions`, `.representations`,
    `.evaluation`, `.atlas` and the others of `Contents`, each read when it is asked for.

    Raises InputError where the folder is no run.

        run = open_run("runs/smollm2-hardened/default")
        run.evaluation.test["md"]["asr"], run.to_frame()
    """
    contents = Contents(Path(folder))
    if not contents.settings:
        raise InputError(f"{folder} is no run folder: its config.toml is empty")
    return contents
