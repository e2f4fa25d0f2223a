"""The sets that a search found best at a level of refusal or drift, measured on test prompts.

A set chosen as the least of many on val is measured too well there. What is measured is kept in
RUN/remeasured.json by the content of what is ablated, and so it is measured once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from somatlas.ablation import Projection
from somatlas.completions.completion import read_completions
from somatlas.errors import InputError
from somatlas.evaluation.rates import verdict_shares
from somatlas.evaluation.verdicts import VerdictRow
from somatlas.files import read_json, write_json
from somatlas.judges import Verdict
from somatlas.judges.registry import judgements_within
from somatlas.progress import progress
from somatlas.records import Form, checked
from somatlas.runs.answer_check import check_record
from somatlas.runs.contents import Contents
from somatlas.runs.folder import Run
from somatlas.runs.resident import Resident
from somatlas.runs.stages.ablate_stage import harmful_replies, kept_drift


@dataclass(frozen=True)
class Level:
    """What a set must keep to on val: a refusal, or a KL, of at most so much."""

    of: Literal["refusal", "kl"]
    most: float

    def __str__(self) -> str:
        return f"refusal <= {self.most:.0%}" if self.of == "refusal" else f"KL <= {self.most:g}"


LEVELS = (
    *(Level("refusal", most) for most in (0.5, 0.25, 0.1)),
    *(Level("kl", most) for most in (0.1, 0.3, 1.0)),
)


@dataclass(frozen=True)
class Measured:
    """A set's test figures: share of replies that refuse by prompt, and KL by harmless reply."""

    refused: Mapping[str, float]
    kl: Mapping[str, float]


def chosen_trial(trials: Sequence[Mapping[str, Any]], level: Level) -> Mapping[str, Any] | None:
    """Of the trials that keep to a level on val, the one with the least of the other measure.

    Ties go to the lower of the level's own measure, then to the earlier trial. Trials that were
    ended early, and those whose KL was not measured, are no choice; None where none keeps to it.
    """
    other = "kl" if level.of == "refusal" else "refusal"
    able = [t for t in trials if t["kl"] is not None and not t["pruned"]]
    able = [t for t in able if t[level.of] <= level.most]
    return min(able, key=lambda t: (t[other], t[level.of]), default=None)


def val_trials(run: Run) -> list[dict[str, Any]]:
    """The trials of a run's search that measured refusal and KL; none where ranks were given."""
    if run.config.ids is not None:
        return []
    trials = Contents(run.folder).search.trials
    return [t for t in trials if t["kl"] is not None and not t["pruned"]]


def remeasured(run: Run) -> dict[Level, tuple[Mapping[str, Any], Measured]] | None:
    """The trial chosen at each level that has one, and its test figures; None where one lacks.

    Loads no model.
    """
    chosen, keys, kept = _chosen(run), _Keys(run), _kept(run)
    found = {level: (trial, kept.get(keys.of(trial["ranks"]))) for level, trial in chosen.items()}
    if any(own is None for _, own in found.values()):
        return None
    return {
        level: (trial, Measured(own["refused"], own["kl"]))
        for level, (trial, own) in found.items()
        if own is not None
    }


def remeasure(runs: Sequence[Run]) -> None:
    """Measure what the runs' searches chose at each level on test prompts, unless it is kept.

    Raises InputError where no run's search measured drift.
    """
    searched = [run for run in runs if val_trials(run)]
    if not searched:
        raise InputError(
            "nothing can be measured again: no run measured drift in its search (--objective "
            "asr,kl)"
        )
    resident = Resident()
    for run in searched:
        keys, kept = _Keys(run), _kept(run)
        wanted = {keys.of(trial["ranks"]): trial["ranks"] for trial in _chosen(run).values()}
        missing = {key: ranks for key, ranks in wanted.items() if key not in kept}
        if missing:
            resident.lend(run)
            _measure(run, missing, kept)
            resident.keep(run)


def _measure(run: Run, missing: Mapping[str, Sequence[int]], kept: dict[str, Any]) -> None:
    """Measure sets and keep each once it is measured."""
    directions = Contents(run.folder).directions
    base = read_completions(run.path("completions/base.jsonl"))
    run.use_check(check_record(run))
    judge = run.judges.get(run.config.judge, run.answer_check)
    drift = kept_drift(run).on(run.lm, run.config.batch_size)
    replies = sum(one.kind == "harmful" for one in base)
    with progress("remeasure", len(missing) * replies) as advance:
        for key, ranks in missing.items():
            projection = Projection(directions.vectors[list(ranks)], run.config.mode)
            rows = harmful_replies(run, projection, advance)
            asked, replied = [row.prompt for row in rows], [row.reply for row in rows]
            said = judgements_within(judge, asked, replied, run.config.max_missing)
            verdicts = [
                VerdictRow("", "harmful", row.category, row.prompt, j.verdict.value)
                for row, j in zip(rows, said, strict=True)
            ]
            kept[key] = {
                "ranks": list(ranks),
                "refused": verdict_shares(verdicts, Verdict.REFUSED, "harmful"),
                "kl": {str(n): kl for n, kl in enumerate(drift.by_reply(projection))},
            }
            write_json(run.path("remeasured.json"), kept)


def _chosen(run: Run) -> dict[Level, dict[str, Any]]:
    trials = val_trials(run)
    chosen = {level: chosen_trial(trials, level) for level in LEVELS}
    return {level: dict(trial) for level, trial in chosen.items() if trial is not None}


class _Remeasured(Form):
    """Of a set of ranks: who was refused, and KL in nats a token, by prompt and by reply."""

    ranks: list[int]
    refused: dict[str, float]
    kl: dict[str, float]


def _kept(run: Run) -> dict[str, Any]:
    path = run.path("remeasured.json")
    if not path.exists():
        return {}
    return dict(checked(dict[str, _Remeasured], read_json(path), str(path)))


class _Keys:
    """What a measurement is kept under: the directions, and all that decides replies and verdicts.

    The budget of the search alone may change in a folder and leaves a set's figures as they are.
    """

    def __init__(self, run: Run) -> None:
        self.vectors: Tensor = Contents(run.folder).directions.vectors
        settings = run.config.settings_until("ablate")
        del settings["trials"]
        base = hashlib.sha256(run.path("completions/base.jsonl").read_bytes()).hexdigest()
        self.ground = json.dumps([settings, base], sort_keys=True)

    def of(self, ranks: Sequence[int]) -> str:
        """The key of a set of ranks."""
        digest = hashlib.sha256(self.vectors[list(ranks)].double().numpy().tobytes())
        digest.update(self.ground.encode())
        return digest.hexdigest()[:32]
