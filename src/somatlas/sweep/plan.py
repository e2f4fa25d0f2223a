"""What a sweep is to do: its points, each an ordinary run, checked before anything is loaded.

    runs/<model>/<sweep>/sweep.json            what was asked for and what came out
    runs/<model>/<sweep>_k=1_seed=0/           a point: a run's folder like any other

What the first command gave is kept in sweep.json, so that a later one without flags goes on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from somatlas.errors import InputError
from somatlas.files import read_json
from somatlas.prompts import PromptSet
from somatlas.records import Form, checked
from somatlas.runs.folder import Run, open_run, run_folder
from somatlas.runs.folder_kind import check_folder
from somatlas.runs.places import bring
from somatlas.runs.settings import STAGES, Config, Stage
from somatlas.runs.stages.represent_stage import check_grid
from somatlas.sweep.axes import (
    Axis,
    combinations,
    parse_axes,
    point_name,
    point_text,
    raise_all,
)

NAME = "sweep"  # the default of --name
MOST_POINTS = 1000
_PLACE = {"model", "name", "out"}
# A storage's URL may hold a password; where a sweep is carried out is each command's own.
_UNKEPT = {*_PLACE, "storage", "ray", "workers", "gpus_per_worker"}


class _Kept(Form):
    """What is read of sweep.json again."""

    over: dict[str, list[str]]
    settings: dict[str, Any]
    until: Stage = "judge"


@dataclass(frozen=True)
class Point:
    """One combination of the axes' values, as written, and its run."""

    values: Mapping[str, str]
    run: Run

    def __str__(self) -> str:
        return point_text(self.values)


@dataclass(frozen=True)
class Plan:
    """A sweep's folder, axes, points and stages. given : settings that every point has."""

    folder: Path
    axes: Sequence[Axis]
    points: Sequence[Point]
    stages: Sequence[Stage]
    given: Mapping[str, Any]

    @cached_property
    def x(self) -> Axis:
        """The axis that is drawn along: the first that is not the seed."""
        return next((axis for axis in self.axes if axis.setting != "seed"), self.axes[0])

    @property
    def parts(self) -> list[str]:
        """The settings that tell lines apart: neither along x nor pooled, as seeds are."""
        others = (axis.setting for axis in self.axes if axis is not self.x)
        return [setting for setting in others if setting != "seed"]


def make_plan(
    over: Sequence[str], layers: Sequence[Mapping[str, Any]], until: Stage | None
) -> Plan:
    """Read what is asked for; later layers of settings win over earlier ones.

    over : the axes as `parse_axes` takes them; none: those of the sweep that is there. until : the
    last stage. Raises InputError that names everything found wrong.
    """
    flags = layers[-1]
    place = Config.merged({"name": NAME}, *({n: x[n] for n in _PLACE & x.keys()} for x in layers))
    folder = run_folder(place)
    bring(place.out, folder)
    check_folder(folder, "sweep")
    path = folder / "sweep.json"
    kept: dict[str, Any] = {"over": {}, "settings": {}}
    if path.exists():
        kept = checked(_Kept, read_json(path), str(path))
    if not over and not kept["over"]:
        raise InputError("a sweep needs an axis: give --over, as in --over k=1-7 --over seed=0-2")
    axes = parse_axes(over) if over else [Axis(n, tuple(v)) for n, v in kept["over"].items()]
    stages = STAGES[: STAGES.index(until or kept.get("until", "judge")) + 1]
    given: dict[str, Any] = dict(kept["settings"])
    for layer in layers:
        given |= {n: value for n, value in layer.items() if n not in _PLACE}
    raise_all(_misfits(axes, flags, given, stages))
    count = 1
    for axis in axes:
        count *= len(axis.values)
    if count > MOST_POINTS:
        raise InputError(
            f"the axes make {count} points, more than {MOST_POINTS}: take fewer values, or sweep "
            "in parts, each with a --name of its own"
        )
    where = {"model": place.model, "out": str(place.out)}
    points = _points(place.name, axes, {**given, **where})
    kept_settings = {n: value for n, value in given.items() if n not in _UNKEPT}
    return Plan(folder, axes, points, stages, kept_settings)


def _misfits(
    axes: Sequence[Axis],
    flags: Mapping[str, Any],
    given: Mapping[str, Any],
    stages: Sequence[Stage],
) -> list[str]:
    """Axes that contradict the other settings, or that would change nothing."""
    problems = []
    for axis in axes:
        stage = Config.stage_of(axis.setting)
        if axis.setting in flags:
            flag = "--" + axis.setting.replace("_", "-")
            problems.append(f"{axis.setting} is given twice, by {flag} and --over: leave one")
        if stage not in stages:
            problems.append(
                f"--over {axis.setting} changes nothing before the stage {stage}: give --until "
                f"{stage}"
            )
    names = {axis.setting for axis in axes}
    if "ids" in {*names, *given} and "k" in names:
        problems.append("--over k changes nothing where --ids names the ranks: leave one")
    return problems


def _points(name: str, axes: Sequence[Axis], given: Mapping[str, Any]) -> list[Point]:
    """Every point with its run; raises InputError with what is wrong with any of them."""
    points: list[Point] = []
    problems: list[str] = []
    read: dict[str, PromptSet] = {}
    for values in combinations(axes):
        flags = {**given, **values, "name": point_name(name, values)}
        try:
            point = Point(values, open_run(flags, None, {}))
            _check(point, read)
            points.append(point)
        except InputError as error:
            problems += [_told(problem, values) for problem in error.problems]
    raise_all(problems)
    return points


def _told(problem: str, values: Mapping[str, str]) -> str:
    """A problem with the point that has it, unless it names the setting itself."""
    if any(problem.startswith(f"setting {setting!r}") for setting in values):
        return f"--over: {problem}"
    return f"{point_text(values)}: {problem}"


def _check(point: Point, read: dict[str, PromptSet]) -> None:
    """Raise InputError for what would stop the point later, as far as it is known now."""
    run = point.run
    key = repr(run.config.settings_until("represent"))
    if key in read:
        run.all_prompts = read[key]
    read[key] = run.all_prompts
    check_grid(run)
    run.check_settings()
