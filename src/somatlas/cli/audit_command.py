"""`somatlas audit`: what it costs to break a model, and whether it is dearer than another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from somatlas.cli.options import SectionedCommand, given, option, settings_named
from somatlas.errors import InputError

if TYPE_CHECKING:
    from somatlas.audits.preparing import Prepared
    from somatlas.runs.folder import Run

_SECTION = "What is attacked, and how"
_SETTINGS = {
    "The model and its prompts": (
        "prompts",
        "positive",
        "negative",
        "borderline",
        "column",
        "group",
        "system",
        "chat_template",
        "thinking",
        "date",
        "dtype",
        "site",
        "tied_head",
        "refusal_tokens",
    ),
    "Who judges the replies": (
        "judge",
        "more_judges",
        "behaviour",
        "judge_template",
        "judge_labels",
        "judge_settings",
        "endpoint_url",
        "endpoint_timeout",
        "endpoint_concurrency",
        "max_missing",
    ),
    "How it is carried out": (
        "seed",
        "out",
        "device",
        "lanes",
        "workers",
        "ray",
        "gpus_per_worker",
        "piece_timeout",
        "batch_size",
        "trust_remote_code",
    ),
}


@click.command("audit", cls=SectionedCommand)
@option(
    "--against",
    section=_SECTION,
    metavar="OTHER",
    help="a second model, attacked under the same plan: the one from before a defence, say",
)
@option(
    "--plan",
    section=_SECTION,
    metavar="quick|full|FILE",
    default="quick",
    show_default=True,
    help="attacks, their budgets, prompts and thresholds; a TOML file of them is exploratory",
)
@option(
    "--budget",
    section=_SECTION,
    type=click.Choice(["1", "4"]),
    help="trials of each attack: the plan's, or four times as many too  [default: the plan's]",
)
@option(
    "--relearn",
    section=_SECTION,
    is_flag=True,
    default=None,
    help="also fine-tune copies of the model on a few of its own compliant replies",
)
@option(
    "--name",
    section=_SECTION,
    metavar="NAME",
    help="the audit's folder below the model's  [default: audit, or audit-against-OTHER]",
)
@settings_named(_SETTINGS)
def _audit(
    against: str | None,
    plan: str,
    budget: str | None,
    relearn: bool | None,
    name: str | None,
    config: Path | None,
    **flags: Any,
) -> None:
    """What it costs to take the refusal out of a model: adaptive attacks, drift, a verdict.

    MODEL is smollm2-hardened if not given. Kept in runs/MODEL/audit, or audit-against-OTHER; the
    same command goes on where it was. Nothing in audit.html is a reply.
    """
    from somatlas.models.load import folder_name
    from somatlas.runs.places import claimed, described

    flags["name"] = name or (f"audit-against-{folder_name(against)}" if against else "audit")
    asked = {"budget": None if budget is None else int(budget), "relearn": relearn}
    runs, prepared = _prepared(against, plan, asked, config, flags)
    with claimed(prepared.folder):
        _carry_out(runs, prepared)
    if described(prepared.folder) != str(prepared.folder):
        click.echo(f"audit folder: {described(prepared.folder)}")


def _carry_out(runs: dict[str, Run], prepared: Prepared) -> None:
    from somatlas.audits.audit import carry_out, means_of
    from somatlas.audits.audit_fleet import make_audit_fleet

    prepared.fix()
    run = runs["model"]
    click.echo(f"plan: {prepared.folder / 'plan.json'}, sha256 {prepared.plan.sha256}", err=True)
    c = run.config
    means = means_of(
        prepared,
        batch_size=c.batch_size,
        lanes=c.lanes,
        max_missing=c.max_missing,
        refusal_tokens=c.refusal_tokens,
    )
    fleet = make_audit_fleet(runs, means)
    try:
        found = carry_out(
            prepared,
            means,
            fleet,
            store=run.folder.parent / ".replies",
            say=lambda line: click.echo(line, err=True),
        )
    finally:
        fleet.close()
    page = found.save()
    click.echo(found.table())
    click.echo(f"page: {page}")


def _prepared(
    against: str | None,
    plan: str,
    asked: dict[str, Any],
    config: Path | None,
    flags: dict[str, Any],
) -> tuple[dict[str, Run], Prepared]:
    """Everything that can be tried before a model is loaded, and what was wrong said at once."""
    from somatlas.audits.audit_fleet import check_learning
    from somatlas.audits.preparing import check_alike, check_widths, prepare
    from somatlas.errors import Problems
    from somatlas.models.load import folder_name, load_tokenizer
    from somatlas.runs.folder import Run
    from somatlas.runs.places import bring
    from somatlas.runs.preflight import check_inputs, stated
    from somatlas.runs.setting_sources import from_environment, read_config_file
    from somatlas.runs.settings import Config

    file = read_config_file(config) if config else {}
    layers = [file, from_environment(), given(flags)]
    named = {name for layer in layers for name in layer}
    merged = Config.merged(*layers)
    runs = {"model": Run(merged)}
    bring(merged.out, runs["model"].folder)
    if against is not None:
        if folder_name(against) == folder_name(merged.model):
            raise InputError(f"--against {against} has the model's own name: name another one")
        runs["against"] = Run(merged.model_copy(update={"model": against}))
    problems = Problems()
    for run in runs.values():
        with problems.gathered():
            check_inputs(run, ("represent", "layers"))  # of which the refusal tokens
    with problems.gathered():
        prepared = prepare(
            runs["model"].all_prompts,
            runs["model"].folder,
            {role: folder_name(run.config.model) for role, run in runs.items()},
            plan,
            runs["model"].judges,
            **asked,
            **{
                name: getattr(merged, name)
                for name in ("seed", "judge", "more_judges")
                if name in named
            },
        )
    problems.raise_found()
    check_learning(merged, prepared.plan)
    models, trusted = {r: run.config.model for r, run in runs.items()}, merged.trust_remote_code
    widths = {role: stated(name, "hidden_size", trusted) for role, name in models.items()}
    check_widths(prepared.names, widths, prepared.plan)
    if against is not None:
        check_alike(
            prepared.names,
            widths,
            {role: load_tokenizer(name, trusted).get_vocab() for role, name in models.items()},
            prepared.plan,
        )
    return runs, prepared


AUDITS = {"audit": _audit}
