"""The command `somatlas`: parse, call, print."""

from __future__ import annotations

import io
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from somatlas import __version__
from somatlas.errors import InputError
from somatlas.files import read_json
from somatlas.models.names import DEFAULT_MODEL
from somatlas.runs.settings import REDONE, STAGES, Config, Stage, from_environment, read_config_file

if TYPE_CHECKING:
    from somatlas.runs.folder import Run

_SUMMARIES: dict[Stage, str] = {
    "represent": "Residual-stream vectors of the train prompts, at every layer.",
    "layers": "Choose the layer to cut.",
    "map": "Train the map on the harmful vectors and make directions of it.",
    "search": "Search which directions to ablate together.",
    "ablate": "Replies to the test prompts: base, single direction, chosen directions.",
    "judge": "Judge the replies and print the table.",
    "cost": "What each ablation costs: drift, length, repetition, perplexity, tasks.",
    "atlas": "Geometry, neurons and stability of a judged run, for the report.",
}


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="somatlas")
def commands() -> None:
    """Map how a language model encodes refusal, and measure what removing it does.

    `somatlas run` does everything on the embedded default model; each stage is a command too, and
    goes on from the stages before it in the same run folder.
    """


def _options(stages: tuple[Stage, ...]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A flag for every setting of the stages and for those of none, and the argument MODEL."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for name, field in reversed(Config.model_fields.items()):
            stage = Config.stage_of(name)
            again = any(name in REDONE.get(one, ()) for one in stages)
            if name == "model" or not (stage in stages or stage is None or again):
                continue
            flag = "--" + name.replace("_", "-")
            shown = "" if field.default in (None, False) else f" [{_shown(field.default)}]"
            text = f"{field.description}{shown}"
            if field.annotation is bool:
                option = click.option(flag, is_flag=True, default=None, help=text)
            else:
                option = click.option(flag, metavar="VALUE", help=text)
            function = option(function)
        function = click.option(
            "--config", metavar="FILE", type=Path, help="TOML file of settings; flags win over it"
        )(function)
        return click.argument("model", required=False)(function)

    return decorate


def _shown(default: Any) -> str:
    return "x".join(map(str, default)) if isinstance(default, tuple) else str(default)


def _carry_out(stages: tuple[Stage, ...], config: Path | None, flags: dict[str, Any]) -> None:
    from somatlas.report.cost_table import cost_text
    from somatlas.report.page import refresh_report, write_report
    from somatlas.report.summary import summarise
    from somatlas.runs.folder import open_run
    from somatlas.runs.pipeline import WORK
    from somatlas.runs.preflight import check_inputs
    from somatlas.runs.run_exports import EXPORTS, check_exports, save_exports
    from somatlas.runs.workers import SHARED, share

    exports = {name: flags.pop(name, None) for name in EXPORTS}
    run = open_run(_given(flags), config, from_environment())
    check_exports(exports)
    check_inputs(run, stages)
    worked = False
    for stage in stages:
        if run.config.workers > 1 and stage in SHARED and run.is_asked_for(stage):
            share(run, stage)
        if run.carry_out(stage, WORK[stage]):
            worked = True
        else:
            click.echo(f"{stage}: done before", err=True)
        if stage == "represent":
            _say_notes(run)
        if stage == "judge":
            click.echo(summarise(run))
        if stage == "cost":
            click.echo(cost_text(run))
    page = write_report(run) if "atlas" in stages else refresh_report(run) if worked else None
    if page is not None:
        click.echo(f"report: {page}")
    for path in save_exports(run, exports, lambda line: click.echo(line, err=True)):
        click.echo(f"saved: {path}")
    click.echo(f"run folder: {run.folder}")


def _say_notes(run: Run) -> None:
    """What represent noted of the prompts, on stderr."""
    path = run.path("inputs.json")
    for note in read_json(path)["notes"] if path.exists() else ():
        click.echo(f"note: {note}", err=True)


def _given(flags: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in flags.items() if value is not None}


def _exports(function: Callable[..., Any]) -> Callable[..., Any]:
    """Flags for what the stages that ablate can leave for other tools."""
    for flag, metavar, text in (
        ("--save-directions", "FILE", "write the directions as safetensors with their provenance"),
        ("--save-adapter", "DIR", "write the ablation as a PEFT LoRA adapter of rank k"),
        ("--save-model", "DIR", "write the edited model as a checkpoint"),
    ):
        function = click.option(flag, metavar=metavar, type=Path, help=text)(function)
    return function


def _columns(function: Callable[..., Any]) -> Callable[..., Any]:
    """Flags for a file of replies."""
    for flag, text in (
        ("--prompt-column", "column of a file of replies that holds the request"),
        ("--reply-column", "column that holds the reply"),
        ("--condition-column", "column that parts the rows, such as the method"),
        ("--kind-column", "column that says harmful, harmless or borderline"),
        ("--beside", "folder of a judged run to put in the same table"),
    ):
        function = click.option(flag, metavar="VALUE", help=text)(function)
    return function


def _judged_file(config: Path | None, flags: dict[str, Any]) -> bool:
    """Judge a file of replies, if that is what was named; the flags for it are taken out."""
    names = ("prompt", "reply", "condition", "kind")
    columns = {name: flags.pop(f"{name}_column") for name in names}
    beside, path = flags.pop("beside"), Path(flags.get("model") or "")
    from somatlas.runs.folder import run_at
    from somatlas.runs.judged_file import SUFFIXES, Columns, judge_file

    if path.suffix.lower() not in SUFFIXES:
        if beside or any(columns.values()):
            raise InputError("columns and --beside are for a file of replies: name one")
        return False
    given = {name: value for name, value in _given(flags).items() if name != "model"}
    file = read_config_file(config) if config else {}
    settings = Config.merged(file, from_environment(), given)
    click.echo(
        judge_file(path, Columns(**columns), settings, run_at(Path(beside)) if beside else None)
    )
    return True


def _add_stage(stage: Stage) -> None:
    def command(config: Path | None, **flags: Any) -> None:
        if stage == "judge" and _judged_file(config, flags):
            return
        _carry_out((stage,), config, flags)

    command = _options(STAGES[: STAGES.index(stage) + 1])(command)
    if stage == "ablate":
        command = _exports(command)
    text = f"{_SUMMARIES[stage]} MODEL is {DEFAULT_MODEL} if not given."
    if stage == "judge":
        command = _columns(command)
        text += " In its place a JSON, JSONL, CSV or Parquet file of another tool's replies."
    commands.command(stage, help=text)(command)


for _stage in STAGES:
    _add_stage(_stage)


@commands.command("run", help=f"All stages in order. MODEL is {DEFAULT_MODEL} if not given.")
@_options(STAGES)
@_exports
def _run(config: Path | None, **flags: Any) -> None:
    _carry_out(STAGES, config, flags)


@commands.command("sweep")
@_options(STAGES)
@click.option(
    "--over",
    metavar="SETTING=VALUES",
    multiple=True,
    help="an axis, as k=1-7, seed=0-2 or grid=3x3,4x4 (';' parts values with commas); repeat it",
)
@click.option(
    "--until",
    type=click.Choice(STAGES[STAGES.index("judge") :]),
    help="the last stage of each point [judge]",
)
def _sweep(config: Path | None, over: tuple[str, ...], until: Stage | None, **flags: Any) -> None:
    """A run for each combination of several settings' values; table and figure over them.

    The figure is drawn along the first --over, with a line for each combination of the others;
    seeds are pooled. Finished points are not done again: the same command, or one without --over,
    goes on where it was. The points are runs like any other, named sweep_k=1_seed=0 and so on.
    """
    from somatlas.sweep import sweep

    file = read_config_file(config) if config else {}
    found = sweep(
        over, [file, from_environment(), _given(flags)], until, lambda x: click.echo(x, err=True)
    )
    click.echo(found.text)
    click.echo(f"sweep folder: {found.folder}")
    if found.failed:
        named = "; ".join(f"{name}: {reason}" for name, reason in found.failed.items())
        raise InputError(f"{len(found.failed)} points could not be made: {named}")


@commands.command("doctor", help=f"Is a model covered? MODEL is {DEFAULT_MODEL} if not given.")
@_options(("represent",))
def _doctor(config: Path | None, **flags: Any) -> None:
    from somatlas.measures.doctor import diagnose
    from somatlas.runs.folder import open_run
    from somatlas.runs.preflight import check_inputs

    run = open_run(_given(flags), config, from_environment())
    check_inputs(run, ("represent",))
    click.echo(diagnose(run.lm, run.prompts, run.config.batch_size))


@commands.command("report")
@click.argument("folder", metavar="RUN", type=Path, required=False)
@click.option("--show-completions", is_flag=True, help="show the replies to harmful prompts too")
@click.option("--open", "show", is_flag=True, help="open the page in a browser")
def _report(folder: Path | None, show_completions: bool, show: bool) -> None:
    """Write report.html of a run's folder (default: the default run of the default model).

    The page shows what the run has so far and says what is missing.
    """
    from somatlas.report.page import write_report
    from somatlas.runs.folder import open_run, run_at

    run = run_at(folder) if folder else open_run({}, None, from_environment())
    if not run.stages:
        raise InputError(f"{run.folder} has no stage yet: run `somatlas run` first")
    path = write_report(run, show_completions=show_completions)
    click.echo(path)
    if show:
        click.launch(str(path))


@commands.command("compare")
@click.argument("folders", metavar="RUN...", type=Path, nargs=-1, required=True)
@click.option(
    "--remeasure",
    is_flag=True,
    help="measure what the searches chose on val at each level of refusal and drift on test "
    "prompts (loads the model; kept in RUN/remeasured.json)",
)
def _compare(folders: tuple[Path, ...], remeasure: bool) -> None:
    """A table of several runs on the same test prompts, with paired tests between them.

    Runs that differ in their seed alone are one row where they are measured again.
    """
    from somatlas.report.comparison import check_comparable, comparison_text
    from somatlas.runs.folder import run_at
    from somatlas.runs.remeasure import remeasure as measure_again

    runs = [run_at(folder) for folder in folders]
    if remeasure:
        check_comparable(runs)
        measure_again(runs)
    click.echo(comparison_text(runs))


@commands.command("agree")
@click.argument("folder", metavar="RUN", type=Path)
@click.option("--show-completions", is_flag=True, help="show the replies they differ on")
def _agree(folder: Path, show_completions: bool) -> None:
    """How well a run's judges agree with each other, and with a person's labels."""
    from somatlas.report.agreement_table import agreement_text
    from somatlas.runs.folder import run_at

    click.echo(agreement_text(run_at(folder), show_completions=show_completions))


@commands.command("label")
@click.argument("folder", metavar="RUN", type=Path)
@click.option("--kind", default="harmful", show_default=True, help="kinds, comma-separated")
@click.option("--limit", type=click.IntRange(min=1), help="at most this many replies")
def _label(folder: Path, kind: str, limit: int | None) -> None:
    """Label a run's replies by hand, blind to what made them; goes on where it was left.

    Shows replies to harmful prompts. The labels are kept in RUN/labels.jsonl, and once there are
    some every judge is scored against them.
    """
    from somatlas.evaluation.labels import label, to_label
    from somatlas.report.agreement_table import agreement_text
    from somatlas.runs.folder import run_at

    run = run_at(folder)
    rows = to_label(run, kind.split(","), limit)
    given = label(run, rows, lambda question: str(click.prompt(question)), click.echo)
    click.echo(f"{given} labels given; kept in {run.path('labels.jsonl')}")
    if run.is_done("judge") and run.path("labels.jsonl").exists():
        click.echo(agreement_text(run, show_completions=False))


@commands.command("fetch")
def _fetch() -> None:
    """Fetch the embedded models' base weights into the cache, checked by sha256."""
    from somatlas.models.embedded import fetch_base

    click.echo(fetch_base())


def main() -> None:
    """Entry point: bad input ends with one sentence on stderr and exit code 2."""
    for stream in (sys.stdout, sys.stderr):  # a Windows pipe has no interval's dash in its letters
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        with _stopped_as_by_ctrl_c():
            commands.main(standalone_mode=False)
    except click.ClickException as error:
        _fail(error.format_message())
    except InputError as error:
        _fail(str(error))
    except (KeyboardInterrupt, click.Abort):
        click.echo("\nsomatlas: interrupted; the same command goes on from here", err=True)
        sys.exit(130)
    except OSError as error:
        if error.errno is None:
            raise
        place = f" {error.filename}" if error.filename else ""
        _fail(f"cannot read or write{place}: {error.strerror}")
    except RuntimeError as error:
        if "out of memory" not in str(error):
            raise
        _fail("the device is out of memory: lower --batch-size or take a smaller --dtype")


@contextmanager
def _stopped_as_by_ctrl_c() -> Iterator[None]:
    """A process that is told to end, or whose terminal goes, leaves things as Ctrl-C does."""

    def interrupt(_signal: int, _frame: object) -> None:
        raise KeyboardInterrupt

    names = ("SIGTERM", "SIGHUP")
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (getattr(signal, name) for name in names if hasattr(signal, name)):
            if signal.getsignal(number) is signal.SIG_DFL:  # one that is ignored (nohup) stays so
                before[number] = signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _fail(message: str) -> None:
    click.echo(f"somatlas: {message}", err=True)
    sys.exit(2)


if __name__ == "__main__":
    main()
