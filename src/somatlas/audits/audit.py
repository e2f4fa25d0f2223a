"""An audit from its plan to its record, of one model or of two under the same plan."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import somatlas
from somatlas.arguments import check_kind, check_whole
from somatlas.attacks.attack import Attempt
from somatlas.audits.attacking import UNCHANGED, Attacking
from somatlas.audits.audit_record import AuditRecord, ModelResult
from somatlas.audits.audit_table import audit_table
from somatlas.audits.bench import Bench, Means, between, make_bench
from somatlas.audits.checking import comparison_numbers, finding_rows, findings_of
from somatlas.audits.kept_attempts import NONE, Kept, Place
from somatlas.audits.measured_model import Measured, deciding_place
from somatlas.audits.preparing import Prepared, check_alike, prepare
from somatlas.audits.proving import ALL_KINDS, HARMFUL, prove
from somatlas.audits.recognition import recognition
from somatlas.audits.summing_up import model_numbers
from somatlas.completions.cache import ReplyStore, model_key
from somatlas.errors import InputError
from somatlas.fleet import deal
from somatlas.judges.registry import Judges
from somatlas.models.digest import weights_digest
from somatlas.models.language_model import MODEL, LanguageModel
from somatlas.progress import progress
from somatlas.prompts.bundled import bundled_prompts
from somatlas.prompts.prompt_set import PromptSet, texts

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

        return write_audit(self.record, Path(folder) if folder else self.folder)


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
    models = {"model": lm} | ({} if against is None else {"against": against})
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
    check_alike(
        prepared.names,
        {role: one.d_model for role, one in models.items()},
        {role: one.tokenizer.get_vocab() for role, one in models.items()},
        prepared.plan,
    )
    prepared.fix()
    return carry_out(
        prepared,
        models,
        batch_size=batch_size,
        lanes=lanes,
        max_missing=max_missing,
        refusal_tokens=refusal_tokens,
        say=say,
    )


def carry_out(
    prepared: Prepared,
    models: Mapping[str, LanguageModel],
    *,
    store: Path | None = None,
    batch_size: int = 128,
    lanes: int = 4,
    max_missing: float = 0.02,
    refusal_tokens: Sequence[int] | None = None,
    say: Say = lambda _: None,
) -> Audit:
    """An audit whose plan is fixed, of models by role; see `audit`.

    store : folder of the unattacked models' replies, which audits and runs may share (default: in
    the audit's folder).
    """
    for what, count in {"batch_size": batch_size, "lanes": lanes}.items():
        check_whole(what, count, 1)
    folder = prepared.folder
    means = Means(
        prepared.plan,
        prepared.prompts,
        prepared.parts,
        prepared.judges,
        folder,
        ReplyStore(folder / "unattacked" if store is None else store),
        batch_size,
        lanes,
        max_missing,
        refusal_tokens,
    )
    kept, plan = Kept(folder), prepared.plan
    for role, lm in models.items():
        _check_model(kept, role, lm, means)
    benches = {
        role: make_bench(role, lm, means, models.get("against") if role == "model" else None)
        for role, lm in models.items()
    }
    attacking = {role: Attacking(bench, kept, say) for role, bench in benches.items()}
    _attack(attacking, means, say)
    results, measured, findings = {}, {}, {}
    for role, bench in benches.items():
        names = [judge.name for judge in bench.judges]
        counts = {kind: len(getattr(means.parts.test, kind)) for kind in ALL_KINDS}
        found = measured[role] = Measured(role, plan, kept, names, counts)
        _test(bench, kept, attacking[role], found)
        results[role] = _result(bench, kept, attacking[role], found)
        findings[role] = findings_of(found)
    together: dict[str, Any] = {}
    if "against" in measured:
        drift = between(benches["model"], benches["against"])
        every = [one for own in findings.values() for one in own]
        together = comparison_numbers(measured["model"], measured["against"], every, drift)
    record = AuditRecord(
        plan=plan.plain(),
        plan_sha256=plan.sha256,
        judges={judge.name: dict(judge.record) for judge in benches["model"].judges},
        models=results,
        findings=finding_rows(findings),
        somatlas=somatlas.__version__,
        **together,
    )
    return Audit(record, folder)


def _check_model(kept: Kept, role: str, lm: LanguageModel, means: Means) -> None:
    """Raise InputError where the folder's attempts were made on another model, or one that is asked
    otherwise: with another template, system prompt or place of ablation."""
    asked = model_key(lm, None, texts(means.parts.test.harmful))
    digest = hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()
    now = {"name": lm.name, "weights": weights_digest(lm.model), "asked": digest}
    was = kept.models.get(role)
    if was is None:
        kept.models.put({role: now})
    elif was != now:
        what = "other weights" if was["weights"] != now["weights"] else "prompts put otherwise"
        raise InputError(
            f"{means.folder} holds an audit of {was['name']} with {what}: give another --name"
        )


def _attack(attacking: Mapping[str, Attacking], means: Means, say: Say) -> None:
    """Every attack on every model under every seed: pieces of work that need no order."""
    plan, start = means.plan, time.monotonic()
    seeds = range(plan.seed, plan.seed + plan.seeds)
    total = len(attacking) * plan.seeds * sum(map(plan.trials, plan.attacks))
    with progress("attempts", total) as advance:
        for one in attacking.values():
            for seed in seeds:
                one.unchanged(seed)
                for name in plan.attacks:
                    one.run(seed, name, advance)
    say(f"attacks: {(time.monotonic() - start) / 60:.1f} min")


def _test(bench: Bench, kept: Kept, attacking: Attacking, found: Measured) -> None:
    """Test what was chosen, those of one kind side by side."""
    whole, harmful = found.places()
    todo = {
        kinds: [p for p in places if not _is_tested(kept, p, kinds)]
        for kinds, places in ((ALL_KINDS, whole), (HARMFUL, harmful))
    }
    with progress(f"test {bench.role}", sum(map(len, todo.values()))) as advance:
        for kinds, places in todo.items():
            for lanes in deal(places, bench.means.lanes):
                prove(bench, kept, {p: _attempt(attacking, p) for p in lanes}, kinds)
                advance(len(lanes))


def _is_tested(kept: Kept, place: Place, kinds: Sequence[str]) -> bool:
    found = kept.tested.get(str(place))
    return found is not None and found.has(kinds)


def _attempt(attacking: Attacking, place: Place) -> Attempt:
    return UNCHANGED if place.attack == NONE else attacking.attempt(place)


def _result(bench: Bench, kept: Kept, attacking: Attacking, found: Measured) -> ModelResult:
    numbers = model_numbers(found)
    _, deciding = deciding_place(found, found.cost(found.frontier(found.top)))
    known = {}
    for name, place in (("none", Place(found.role, found.plan.seed, NONE)), ("edited", deciding)):
        if str(place) not in kept.recognition:
            row = asdict(recognition(bench, _attempt(attacking, place)))
            kept.recognition.put({str(place): row})
        known[name] = {"place": str(place), **(kept.recognition.get(str(place)) or {})}
    return ModelResult(
        name=bench.lm.name,
        weights=weights_digest(bench.lm.model),
        dtype=str(bench.lm.model.dtype).removeprefix("torch."),
        notes=list(bench.lm.notes),
        refusal_tokens=[str(bench.lm.tokenizer.decode([t])) for t in bench.refusal_tokens],
        recognition=known,
        **numbers,
    )
