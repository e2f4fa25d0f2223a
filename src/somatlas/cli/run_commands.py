"""Commands that carry out stages: each stage, all of them, many runs, a look at the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from somatlas.cli.judged_command import columns, judged_file
from somatlas.cli.options import (
    MODEL_TEXT,
    SUMMARIES,
    Function,
    SectionedCommand,
    given,
    option,
    settings_of,
)
from somatlas.errors import InputError
from somatlas.runs.fields import STAGES, Stage


def _carry_out(stages: tuple[Stage, ...], config: Path | None, flags: dict[str, Any]) -> None:
    from somatlas.report.page import refresh_report, write_report
    from somatlas.report.stage_output import stage_notes, stage_output
    from somatlas.runs import pipeline
    from somatlas.runs.estimate import as_time, seconds_left, time_spent
    from somatlas.runs.folder import open_run
    from somatlas.runs.places import claimed, described
    from somatlas.runs.preflight import check_inputs
    from somatlas.runs.run_exports import EXPORTS, check_exports, save_exports
    from somatlas.runs.setting_sources import from_environment

    def announce(stage: Stage) -> None:
        if len(stages) > 1 and not run.is_done(stage):
            left = seconds_left(run, stages)
            when = "" if left is None else f", about {as_time(left)} left in all"
            click.echo(f"stage {stages.index(stage) + 1} of {len(stages)}: {stage}{when}", err=True)

    def say(stage: Stage, now: bool) -> None:
        if not now:
            click.echo(f"{stage}: done before", err=True)
        for note in stage_notes(run, stage):
            click.echo(f"note: {note}", err=True)
        if text := stage_output(run, stage, now=now):
            click.echo(text)
        if now and stages[-2:] == (stage, "atlas"):
            click.echo(f"report so far: {write_report(run)}")  # the atlas takes a third of a run

    exports = {name: flags.pop(name, None) for name in EXPORTS}
    run = open_run(given(flags), config, from_environment())
    check_exports(exports)
    check_inputs(run, stages)
    with claimed(run.folder):
        try:
            worked = pipeline.carry_out(run, stages, say, announce)
        finally:
            run.dismiss()
        page = write_report(run) if "atlas" in stages else refresh_report(run) if worked else None
        if page is not None:
            click.echo(f"report: {page}")
        for path in save_exports(run, exports, lambda line: click.echo(line, err=True)):
            click.echo(f"saved: {path}")
    if worked and len(stages) > 1 and (spent := time_spent(run, stages)):
        click.echo(spent, err=True)
    click.echo(f"run folder: {described(run.folder)}")


def _exports(function: Function) -> Function:
    """Flags for what the stages that ablate can leave for other tools."""
    for flag, metavar, text in (
        ("--save-directions", "FILE", "write the directions as safetensors with their provenance"),
        ("--save-adapter", "FOLDER", "write the ablation as a PEFT LoRA adapter of rank k"),
        ("--save-model", "FOLDER", "write the edited model as a checkpoint"),
    ):
        function = option(
            flag,
            section="What is saved for other tools",
            metavar=metavar,
            type=click.Path(path_type=Path),
            help=text,
        )(function)
    return function


def _stage_command(stage: Stage) -> click.Command:
    def command(config: Path | None, **flags: Any) -> None:
        if stage == "judge" and judged_file(config, flags):
            return
        _carry_out((stage,), config, flags)

    decorated: Function = command
    text = f"{SUMMARIES[stage]} {MODEL_TEXT}"
    if stage == "ablate":
        decorated = _exports(decorated)
    if stage == "judge":
        decorated = columns(decorated)
        text += " In its place a JSON, JSONL, CSV or Parquet file of another tool's replies."
    decorated = settings_of(*STAGES[: STAGES.index(stage) + 1])(decorated)
    return click.command(stage, cls=SectionedCommand, help=text)(decorated)


STAGE_COMMANDS = {stage: _stage_command(stage) for stage in STAGES}


@click.command("run", cls=SectionedCommand, help=f"All stages in order. {MODEL_TEXT}")
@settings_of(*STAGES)
@_exports
def _run(config: Path | None, **flags: Any) -> None:
    _carry_out(STAGES, config, flags)


@click.command("sweep", cls=SectionedCommand)
@option(
    "--over",
    section="What is swept",
    metavar="SETTING=VALUES",
    multiple=True,
    help="an axis, as k=1-7, seed=0-2 or grid=3x3,4x4 (';' parts values with commas); repeat it",
)
@option(
    "--until",
    section="What is swept",
    type=click.Choice(STAGES[STAGES.index("judge") :]),
    help="the last stage of each point  [default: judge]",
)
@settings_of(*STAGES)
def _sweep(config: Path | None, over: tuple[str, ...], until: Stage | None, **flags: Any) -> None:
    """A run for each combination of several settings' values; table and figure over them.

    The figure is drawn along the first --over, with a line for each combination of the others;
    seeds are pooled. Finished points are not done again: the same command, or one without --over,
    goes on where it was. The points are runs like any other, named sweep_k=1_seed=0 and so on.
    """
    from somatlas.runs.places import described
    from somatlas.runs.setting_sources import from_environment, read_config_file
    from somatlas.sweep import sweep

    file = read_config_file(config) if config else {}
    found = sweep(
        over, [file, from_environment(), given(flags)], until, lambda x: click.echo(x, err=True)
    )
    click.echo(found.text)
    click.echo(f"sweep folder: {described(found.folder)}")
    if found.failed:
        named = "; ".join(f"{name}: {reason}" for name, reason in found.failed.items())
        raise InputError(f"{len(found.failed)} points could not be made: {named}")


@click.command("doctor", cls=SectionedCommand, help=f"Is a model covered? {MODEL_TEXT}")
@settings_of("represent")
def _doctor(config: Path | None, **flags: Any) -> None:
    from somatlas.report.doctor import diagnose
    from somatlas.runs.folder import open_run
    from somatlas.runs.preflight import check_inputs
    from somatlas.runs.setting_sources import from_environment

    run = open_run(given(flags), config, from_environment())
    check_inputs(run, ("represent",))
    click.echo(diagnose(run.lm, run.prompts, run.config.batch_size))


@click.command("fetch")
def _fetch() -> None:
    """Fetch the embedded models' base weights into the cache, checked by sha256."""
    from somatlas.models.embedded import fetch_base

    click.echo(fetch_base())


WHOLE_RUNS = {"run": _run, "sweep": _sweep, "doctor": _doctor, "fetch": _fetch}
