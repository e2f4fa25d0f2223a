"""What the points of a sweep have in common, made once."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from somatlas.files import atomic_file, remove
from somatlas.runs.folder import Run
from somatlas.runs.settings import Stage

# The files of the stages that points may share; map.png is drawn again by the search.
_FILES: Mapping[Stage, tuple[str, ...]] = {
    "represent": ("representations", "inputs.json"),
    "layers": ("layers.json",),
    "map": (
        "directions.safetensors",
        "single_direction.safetensors",
        "map.safetensors",
        "map.json",
    ),
}
# Later settings that these files depend on as well: inputs.json says which prompts leave no room
# for a reply, and methods other than the map make as many directions as there are candidates.
_ALSO: Mapping[Stage, tuple[str, ...]] = {
    "represent": ("search_tokens", "test_tokens", "test_prompts"),
    "map": ("candidates",),
}
# These draw nothing: the seed decides them by the prompts' split alone, which prompts_sha256 shows.
_SEEDLESS: tuple[Stage, ...] = ("represent", "layers")


def take_over(run: Run, stage: Stage, others: Iterable[Run]) -> bool:
    """Take a stage's files from the first of the other runs that has made the same; True if so.

    They are hard links where the file system has them: no stage writes into a file that is there.
    stages.json says whose they are, and the seconds that taking them took.
    """
    if stage not in _FILES or run.is_done(stage):
        return False
    source = next((other for other in others if _has_made(other, stage, run)), None)
    if source is None:
        return False
    start = time.monotonic()
    for name in _FILES[stage]:
        for path in _files(source.path(name)):
            _link(path, run.path(str(path.relative_to(source.folder))))
    if stage == "layers":
        remove(run.path("layers.part.json"))
    run.take_over(stage, source, time.monotonic() - start)
    return True


def _has_made(other: Run, stage: Stage, run: Run) -> bool:
    if other.folder == run.folder or not other.is_done(stage):
        return False
    free = {"seed"} if stage in _SEEDLESS else set()
    was, now = other.stages[stage]["settings"], run.settings(stage)
    if any(was.get(name) != now.get(name) for name in {*was, *now} - free):
        return False
    also = _ALSO.get(stage, ())
    return all(getattr(other.config, name) == getattr(run.config, name) for name in also)


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(one for one in path.iterdir() if one.suffix != ".part")
    return [path] if path.exists() else []


def _link(source: Path, target: Path) -> None:
    with atomic_file(target) as temporary:
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copy2(source, temporary)
