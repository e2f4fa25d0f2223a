"""What the points of a sweep have in common, made once."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from somatlas.config import Config, Stage
from somatlas.files import atomic_file
from somatlas.models.language_model import LanguageModel
from somatlas.run import Run, model_arguments

# The files of the stages that points may share; map.png is drawn again by the search.
_FILES: Mapping[Stage, tuple[str, ...]] = {
    "represent": ("representations",),
    "layers": ("layers.json",),
    "map": ("directions.safetensors", "single_direction.safetensors", "map.safetensors"),
}
# These draw nothing: the seed decides them by the prompts' split alone, which prompts_sha256 shows.
_SEEDLESS: tuple[Stage, ...] = ("represent", "layers")
# Settings besides those of the stages in _FILES that no judge reads.
_UNJUDGED = {"name", "k", "candidates", "mode", "trials"}


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
        run.path("layers.part.json").unlink(missing_ok=True)
    whose = source.stages[stage].get("taken_from", source.folder.name)
    run.take_over(stage, whose, time.monotonic() - start)
    return True


def _has_made(other: Run, stage: Stage, run: Run) -> bool:
    if other.folder == run.folder or not other.is_done(stage):
        return False
    free = {"seed"} if stage in _SEEDLESS else set()
    was, now = other.stages[stage]["settings"], run.settings(stage)
    if any(was.get(name) != now.get(name) for name in {*was, *now} - free):
        return False
    # Methods other than the map make as many directions as there are candidates.
    return stage != "map" or other.config.candidates == run.config.candidates


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


class Resident:
    """The model and the judges that the last point loaded, for the next one where it may have them.

    One model is held at a time: points that load it differently let go of it first.
    """

    def __init__(self) -> None:
        self._model: LanguageModel | None = None
        self._run: Run | None = None

    def lend(self, run: Run) -> None:
        """Give a run what it would load itself, if that is here."""
        last = self._run
        if last is None:
            return
        if self._model is not None:
            alike = last.config.model == run.config.model
            if alike and model_arguments(last.config) == model_arguments(run.config):
                run.lm = self._model
            else:
                self._model = None
        if "judges" in vars(last) and _judged_alike(last.config, run.config):
            run.judges = last.judges

    def keep(self, run: Run) -> None:
        """Take what a run has loaded, and let it go there."""
        self._model = vars(run).pop("lm", self._model)
        if self._run is not None and self._run is not run:
            vars(self._run).pop("judges", None)
        self._run = run


def _judged_alike(first: Config, second: Config) -> bool:
    """Whether two runs' judges are the same; a server's keep their answers in the run's folder."""
    specs = (first.judge, *first.more_judges, second.judge, *second.more_judges)
    if any(spec.startswith("endpoint:") for spec in specs):
        return False
    return all(
        getattr(first, name) == getattr(second, name)
        for name in Config.model_fields
        if name not in _UNJUDGED and Config.stage_of(name) not in _FILES
    )
