"""Carry out a sweep: its points one after another, then its table and figure."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from somatlas.errors import InputError, Problems
from somatlas.report.page import write_report
from somatlas.report.stage_output import stage_output
from somatlas.runs.folder import Run, model_arguments, weights_work
from somatlas.runs.pipeline import carry_out
from somatlas.runs.places import claimed
from somatlas.runs.preflight import check_inputs
from somatlas.runs.resident import Resident
from somatlas.runs.settings import Stage
from somatlas.sweep.axes import raise_all
from somatlas.sweep.output import write_record, write_results
from somatlas.sweep.plan import Plan, make_plan
from somatlas.sweep.results import measured
from somatlas.sweep.shared import take_over

# Settings that decide nothing of what `check_inputs` tries; a point's own plan has tried its grid.
_UNTRIED = {"name", "seed", "draw", "k", "grid", "candidates", "trials", "mode"}


@dataclass(frozen=True)
class Swept:
    """A sweep's folder, its table, and why points could not be made, by their names."""

    folder: Path
    text: str
    failed: Mapping[str, str]


def sweep(
    over: Sequence[str],
    layers: Sequence[Mapping[str, Any]],
    until: Stage | None,
    say: Callable[[str], None],
) -> Swept:
    """Make every point that is not finished, and write the sweep's files.

    over, layers, until : see `make_plan`. say : told a line a point. Raises InputError for what is
    wrong with the axes or any point before a model is loaded, and where no point could be made. A
    model that cannot be loaded ends the sweep at once.
    """
    plan = make_plan(over, layers, until)
    runs = [point.run for point in plan.points]
    to_make = [run for run in runs if not _is_finished(run, plan.stages)]
    _check_inputs(to_make, plan.stages)
    with claimed(plan.folder):
        return _swept(plan, to_make, say)


def _swept(plan: Plan, to_make: Sequence[Run], say: Callable[[str], None]) -> Swept:
    runs = [point.run for point in plan.points]
    resident, rows, failed = Resident(), [], dict[str, str]()
    start, made = time.monotonic(), 0
    try:
        for number, point in enumerate(plan.points, start=1):
            run = point.run
            head = f"point {number} of {len(runs)}: {point}"
            if run not in to_make:
                say(f"{head}: done before")
            else:
                say(f"{head}{_times(time.monotonic() - start, made, len(to_make))}")
                resident.lend(run)
                _same_model(run, runs)  # what cannot be loaded stops here, not at every point
                try:
                    with claimed(run.folder):
                        _make(run, plan.stages, runs)
                except InputError as error:
                    failed[run.folder.name] = str(error)
                    say(f"{head}: not made: {error}")
                resident.keep(run)
                made += 1
            if run.folder.name not in failed:
                rows.append(measured(run, point.values))
            if run in to_make:
                write_record(plan, rows, failed, None)
    finally:
        resident.dismiss()
    if not rows:
        raise_all(list(failed.values()))
    text = write_results(plan, rows, failed)
    return Swept(plan.folder, text, failed)


def _is_finished(run: Run, stages: Sequence[Stage]) -> bool:
    return run.path("evaluation.json").exists() and not any(map(run.would_do, stages))


def _check_inputs(runs: Sequence[Run], stages: Sequence[Stage]) -> None:
    """`check_inputs` of the points, once for those that differ in no file, name or place."""
    problems, tried = Problems(), set[str]()
    for run in runs:
        told = repr(run.config.model_dump(exclude=_UNTRIED))
        if told not in tried:
            tried.add(told)
            with problems.gathered():
                check_inputs(run, stages)
    raise_all(problems.found)


def _same_model(run: Run, runs: Sequence[Run]) -> None:
    """Have the run's model loaded, and raise InputError where other points were made with other
    weights.

    A finished point loads none itself.
    """
    run.settle()
    weights = run.fleet.prepared(weights_work, None).one(None)
    for other in runs:
        if model_arguments(other.config) == model_arguments(run.config):
            other.check_weights(weights)


def _make(run: Run, stages: Sequence[Stage], others: Sequence[Run]) -> None:
    """The stages of one point that are not done, taken from other points where those made them."""
    for stage in stages:
        if take_over(run, stage, others):
            continue
        carry_out(run, [stage], lambda one, now: _output(run, one, now))


def _output(run: Run, stage: Stage, now: bool) -> None:
    stage_output(run, stage, now=now)
    if stage == "atlas":
        write_report(run)


def _times(seconds: float, made: int, to_make: int) -> str:
    """How long it took so far, and about how long the rest will."""
    if not made:
        return ""
    left = seconds / made * (to_make - made)
    return f" ({seconds / 60:.1f} min so far, about {left / 60:.1f} left)"
