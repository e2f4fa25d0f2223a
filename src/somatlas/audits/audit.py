"""An audit from its plan to its record, of one model or of two under the same plan."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import somatlas
from somatlas.arguments import (
    check_kind,
    check_real,
    check_whole,
    described,
    path_of,
    whole_numbers,
)
from somatlas.audits.attacking import Attacking
from somatlas.audits.audit_fleet import in_place
from somatlas.audits.audit_record import AuditRecord, ModelResult
from somatlas.audits.audit_table import audit_table
from somatlas.audits.bench import Baseline, Held, Means, between
from somatlas.audits.checking import comparison_numbers, finding_rows, findings_of
from somatlas.audits.kept_attempts import NONE, Kept, Place
from somatlas.audits.measured_model import Measured, deciding_place
from somatlas.audits.preparing import Prepared, check_alike, check_widths, prepare
from somatlas.audits.proving import ALL_KINDS, HARMFUL, prove
from somatlas.audits.reasoning_columns import breaking_place, column_numbers, left_out, reasoned
from somatlas.audits.recognition import Edited, recognition_work
from somatlas.audits.summing_up import model_numbers
from somatlas.audits.unattacked import Introduced, baselines, introduced
from somatlas.completions.cache import ReplyStore
from somatlas.errors import InputError
from somatlas.fleet import Fleet, Work, deal
from somatlas.judges.registry import Judges, is_asked_by_driver
from somatlas.measures.layer_choice import valid_tokens
from somatlas.models.language_model import MODEL, LanguageModel
from somatlas.prompts.bundled import bundled_prompts
from somatlas.prompts.prompt_set import PromptSet

Say = Callable[[str], None]


@dataclass(frozen=True)
class Audit:
    """What an audit found. folder : where it keeps what it measured; replies stay there alone."""

    record: AuditRecord
    folder: Path

    def table(self) -> str:
        """The headline, a row an attack, the checks."""
        return audit_table(self.record)

    def save(self, folder: str | Path | None = None) -> Path:
        """Write audit.json, audit.csv, table.txt, audit.html and figures/, into the audit's folder
        if no other is given; returns the page's path."""
        from somatlas.audits.audit_page import write_audit

        return write_audit(
            self.record, self.folder if folder is None else path_of("folder", folder)
        )


def audit(
    lm: LanguageModel,
    prompts: PromptSet | None = None,
    *,
    against: LanguageModel | None = None,
    plan: str | Path = "quick",
    budget: int | None = None,
    relearn: bool | None = None,
    seed: int | None = None,
    judge: str | None = None,
    more_judges: Sequence[str] | None = None,
    judges: Judges | None = None,
    folder: str | Path | None = None,
    batch_size: int = 128,
    lanes: int = 4,
    max_missing: float = 0.02,
    refusal_tokens: Sequence[int] | None = None,
    say: Say = lambda _: None,
) -> Audit:
    """What it costs to break a model, and whether it is dearer than breaking another one.

    lm : the model. prompts : the bundled ones if not given. against : another model, attacked under
    the same plan; attacks that take something of it are tried on `lm`. plan : quick, full or a TOML
    file. budget : 1, or 4 for four times the trials too. relearn : also attacks that train the
    model. seed, judge, more_judges : in place of the plan's. judges : makes judges by name.
    folder : keeps plan, attempts and replies, so that a killed audit goes on; a temporary one if
    not given. batch_size, lanes : prompts in a forward pass, and attempts side by side; they change
    no result. max_missing : share of replies that a judge may leave without a verdict.
    refusal_tokens : ids that open a refusal (default: found). say : told a line a step.

    Raises InputError for what cannot be attacked, measured or found, and where the folder holds
    another audit.

        found = audit(load_model("smollm2-hardened"), against=load_model("smollm2-guarded"))
        print(found.table())
    """
    check_kind("lm", lm, LanguageModel, MODEL)
    check_kind("against", against, (LanguageModel, type(None)), f"{MODEL}, or None")
    check_kind("prompts", prompts, (PromptSet, type(None)), "a PromptSet, or None")
    check_kind("judges", judges, (Judges, type(None)), "Judges, or None")
    check_kind("folder", folder, (str, Path, type(None)), "a path, or None")
    if isinstance(more_judges, str) or not isinstance(more_judges, Iterable | None):
        raise InputError(f"more_judges must be a list of names, not {described(more_judges)}")
    if not callable(say):
        raise InputError(f"say must be a function of a line, not {described(say)}")
    models = {"model": lm} | ({} if against is None else {"against": against})
    if refusal_tokens is not None:
        refusal_tokens = whole_numbers("refusal_tokens", refusal_tokens, "[10, 20]")
        for one in models.values():
            valid_tokens(refusal_tokens, one.limits.vocabulary)
    prepared = prepare(
        bundled_prompts() if prompts is None else prompts,
        Path(folder) if folder is not None else Path(mkdtemp(prefix="somatlas-audit-")),
        {role: one.name for role, one in models.items()},
        plan,
        judges,
        budget=budget,
        relearn=relearn,
        seed=seed,
        judge=judge,
        more_judges=None if more_judges is None else tuple(more_judges),
    )
    widths = {role: one.d_model for role, one in models.items()}
    check_widths(prepared.names, widths, prepared.plan)
    check_alike(
        prepared.names,
        widths,
        {role: one.tokenizer.get_vocab() for role, one in models.items()},
        prepared.plan,
    )
    means = means_of(
        prepared,
        batch_size=batch_size,
        lanes=lanes,
        max_missing=max_missing,
        refusal_tokens=refusal_tokens,
    )
    prepared.fix()
    return carry_out(prepared, means, in_place(models, means, prepared.judges), say=say)


def means_of(
    prepared: Prepared,
    *,
    batch_size: int = 128,
    lanes: int | None = None,
    max_missing: float = 0.02,
    refusal_tokens: Sequence[int] | None = None,
) -> Means:
    """How a prepared audit is carried out; see `audit`, and `Means` for lanes not given."""
    for what, count in {"batch_size": batch_size, "lanes": 1 if lanes is None else lanes}.items():
        check_whole(what, count, 1)
    check_real("max_missing", max_missing, least=0, most=1)
    return Means(
        prepared.plan,
        prepared.prompts,
        prepared.parts,
        prepared.folder,
        batch_size,
        lanes,
        max_missing,
        refusal_tokens,
    )


def carry_out(
    prepared: Prepared,
    means: Means,
    fleet: Fleet[Held],
    *,
    store: Path | None = None,
    say: Say = lambda _: None,
) -> Audit:
    """An audit whose plan is fixed, by a fleet that holds the models; see `audit`.

    store : folder of the unattacked models' replies, which audits and runs may share (default: in
    the audit's folder).
    """
    kept, plan, roles = Kept(means.folder), means.plan, list(prepared.names)
    models = introduced(fleet, roles)
    for role in roles:
        _check_model(kept, role, models[role], means)
    bases = baselines(
        fleet, roles, ReplyStore(means.folder / "unattacked" if store is None else store)
    )
    names = {role: one.name for role, one in models.items()}
    start = time.monotonic()
    Attacking(fleet, means, kept, names, prepared.judges, say).carry_out(bases)
    say(f"attacks: {(time.monotonic() - start) / 60:.1f} min")
    judges = _told(fleet, means, bases, prepared.judges)
    counts = {kind: len(getattr(means.parts.test, kind)) for kind in ALL_KINDS}
    called = {spec: name for spec, (name, _) in judges.items()}
    measured = {r: Measured(r, plan, kept, list(called.values()), counts) for r in roles}
    chosen = [
        (places, kinds)
        for found in measured.values()
        for places, kinds in zip(found.places(), (ALL_KINDS, HARMFUL), strict=True)
    ]
    prove(fleet, means, kept, bases, chosen, prepared.judges, called)
    edits = {role: _edits(found) for role, found in measured.items()}
    _recognise(fleet, kept, bases, [place for own in edits.values() for place in own.values()])
    breaking = {role: breaking_place(found) for role, found in measured.items()}
    whys = {role: left_out(models[role].silence, place) for role, (_, place) in breaking.items()}
    asked = [place for role, (_, place) in breaking.items() if not whys[role]]
    reasoned(fleet, means, kept, bases, asked, prepared.judges)
    reasoning = {
        role: {"reasons": not models[role].silence, "left_out": why}
        | ({} if why else column_numbers(measured[role], *breaking[role]))
        for role, why in whys.items()
    }
    results = {
        role: _result(models[role], bases[role], kept, found, edits[role], reasoning[role])
        for role, found in measured.items()
    }
    findings = {role: findings_of(found) for role, found in measured.items()}
    together: dict[str, Any] = {}
    if "against" in measured:
        drift = fleet.prepared(between_work, bases).one(None)
        every = [one for own in findings.values() for one in own]
        together = comparison_numbers(measured["model"], measured["against"], every, drift)
    record = AuditRecord(
        plan=plan.plain(),
        plan_sha256=plan.sha256,
        judges=dict(_told(fleet, means, bases, prepared.judges).values()),
        models=results,
        findings=finding_rows(findings),
        somatlas=somatlas.__version__,
        **together,
    )
    return Audit(record, means.folder)


def _check_model(kept: Kept, role: str, model: Introduced, means: Means) -> None:
    """Raise InputError where the folder's attempts were made on another model, or one that is asked
    otherwise: with another template, system prompt or place of ablation."""
    now, was = model.identity, kept.models.get(role)
    if was is None:
        if any(row.role == role for row in kept.attempts.all().values()):
            raise InputError(
                f"{means.folder} holds attempts on a model that its models.jsonl does not name, as "
                f"where that file is damaged: give another --name, or remove that folder"
            )
        kept.models.put({role: now})
    elif was != now:
        what = "other weights" if was.weights != now.weights else "prompts put otherwise"
        raise InputError(
            f"{means.folder} holds an audit of {was.name} with {what}: give another --name"
        )


def told_work(
    held: Held, bases: Mapping[str, Baseline]
) -> Work[None, dict[str, tuple[str, dict[str, Any]]]]:
    """Name and record of each judge that is asked where the model is, by the name that the plan has
    it under."""

    def told() -> dict[str, tuple[str, dict[str, Any]]]:
        judges = held.bench("model", bases).judges
        return {spec: (judge.name, dict(judge.record)) for spec, judge in judges.items()}

    return lambda items, _advance: [told() for _ in items]


def between_work(held: Held, bases: Mapping[str, Baseline]) -> Work[None, float | None]:
    """How far the unattacked models lie apart (`between`)."""
    first, second = (held.bench(role, bases) for role in ("model", "against"))
    return lambda items, _advance: [between(first, second) for _ in items]


def _told(
    fleet: Fleet[Held], means: Means, bases: Mapping[str, Baseline], judges: Judges
) -> dict[str, tuple[str, dict[str, Any]]]:
    """Name and record of every judge, in the plan's order."""
    found = fleet.prepared(told_work, bases).one(None)
    for spec in means.judges:
        if is_asked_by_driver(spec):
            judge = judges.get(spec, None)
            found[spec] = (judge.name, dict(judge.record))
    return {spec: found[spec] for spec in means.judges}


def _edits(found: Measured) -> dict[str, Place]:
    """Under which recognition is measured: none, and the one that decides."""
    _, deciding = deciding_place(found, found.cost(found.frontier(found.top)))
    return {"none": Place(found.role, found.plan.seed, NONE), "edited": deciding}


def _recognise(
    fleet: Fleet[Held], kept: Kept, bases: Mapping[str, Baseline], places: Sequence[Place]
) -> None:
    todo = [place for place in dict.fromkeys(places) if str(place) not in kept.recognition]
    pieces = deal([Edited(place, kept.known(place)) for place in todo], 1)
    made = fleet.prepared(recognition_work, bases).each(pieces)
    for place, [row] in zip(todo, made, strict=True):
        kept.recognition.put({str(place): row})


def _result(
    model: Introduced,
    base: Baseline,
    kept: Kept,
    found: Measured,
    edits: Mapping[str, Place],
    reasoning: dict[str, Any],
) -> ModelResult:
    return ModelResult(
        name=model.name,
        weights=model.weights,
        dtype=model.dtype,
        notes=model.notes,
        refusal_tokens=base.refusal_words,
        recognition={
            name: {"place": str(place), **asdict(kept.recognition.all()[str(place)])}
            for name, place in edits.items()
        },
        reasoning=reasoning,
        **model_numbers(found),
    )
