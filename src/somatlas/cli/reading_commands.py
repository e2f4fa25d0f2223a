"""Commands that read finished runs: page, comparison, agreement of judges, a person's labels."""

from __future__ import annotations

import click

from somatlas.cli.options import folders
from somatlas.errors import InputError


@click.command("report")
@click.argument("folder", metavar="RUN", required=False, shell_complete=folders)
@click.option("--show-completions", is_flag=True, help="show the replies to harmful prompts too")
@click.option("--open", "show", is_flag=True, help="open the page in a browser")
def _report(folder: str | None, show_completions: bool, show: bool) -> None:
    """Write report.html of a run's folder (default: the default run of the default model).

    The page shows what the run has so far and says what is missing.
    """
    from somatlas.report.page import write_report
    from somatlas.runs.folder import open_run, run_at
    from somatlas.runs.setting_sources import from_environment

    run = run_at(folder) if folder is not None else open_run({}, None, from_environment())
    if not run.stages:
        raise InputError(f"{run.folder} has no stage yet: run `somatlas run` first")
    path = write_report(run, show_completions=show_completions)
    click.echo(path)
    if show:
        click.launch(str(path))


@click.command("compare")
@click.argument("folders", metavar="RUN...", nargs=-1, required=True, shell_complete=folders)
@click.option(
    "--remeasure",
    is_flag=True,
    help="measure what the searches chose on val at each level of refusal and drift on test "
    "prompts (loads the model; kept in RUN/remeasured.json)",
)
def _compare(folders: tuple[str, ...], remeasure: bool) -> None:
    """A table of several runs on the same test prompts, with paired tests between them.

    Runs that differ in their seed alone are one row where they are measured again.
    """
    from somatlas.report.comparison import check_comparable, comparison_text
    from somatlas.runs.folder import run_at
    from somatlas.runs.remeasure import remeasure as measure_again

    runs = [run_at(folder, whole=remeasure) for folder in folders]
    if remeasure:
        check_comparable(runs)
        measure_again(runs)
    click.echo(comparison_text(runs))


@click.command("agree")
@click.argument("folder", metavar="RUN", shell_complete=folders)
@click.option("--show-completions", is_flag=True, help="show the replies they differ on")
def _agree(folder: str, show_completions: bool) -> None:
    """How well a run's judges agree with each other, and with a person's labels."""
    from somatlas.report.agreement_table import agreement_text
    from somatlas.runs.folder import run_at

    click.echo(agreement_text(run_at(folder), show_completions=show_completions))


@click.command("label")
@click.argument("folder", metavar="RUN", shell_complete=folders)
@click.option("--kind", default="harmful", show_default=True, help="kinds, comma-separated")
@click.option("--limit", type=click.IntRange(min=1), help="at most this many replies")
def _label(folder: str, kind: str, limit: int | None) -> None:
    """Label a run's replies by hand, blind to what made them; goes on where it was left.

    Shows replies to harmful prompts. The labels are kept in RUN/labels.jsonl, and once there are
    some every judge is scored against them.
    """
    from somatlas.evaluation.labels import label, labels_at
    from somatlas.report.agreement_table import agreement_text, replies_to_label
    from somatlas.runs.folder import run_at

    run = run_at(folder)
    rows = replies_to_label(run, kind.split(","), limit)
    path = run.path("labels.jsonl")
    given = label(labels_at(path), rows, lambda question: str(click.prompt(question)), click.echo)
    click.echo(f"{given} labels given; kept in {path}")
    if run.is_done("judge") and path.exists():
        click.echo(agreement_text(run, show_completions=False))


READING = {"report": _report, "compare": _compare, "agree": _agree, "label": _label}
