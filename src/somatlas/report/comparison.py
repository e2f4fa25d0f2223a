"""Several runs side by side, on the same test prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from somatlas.errors import InputError
from somatlas.evaluation import read_completions, read_jsonl
from somatlas.files import read_json
from somatlas.report.tables import plain_table, table_text
from somatlas.report.words import p_text, rate_text
from somatlas.run import Run
from somatlas.statistics import correlation, holm, mcnemar


@dataclass(frozen=True)
class Compared:
    """One condition of one run.

    complied : whether each harmful test prompt was coherently complied with, in order. trials :
    (refusal, KL) of the search's trials, where it measured both.
    """

    name: str
    k: int
    test: Mapping[str, Any]
    complied: list[bool]
    trials: list[tuple[float, float]]


def comparison_text(runs: Sequence[Run]) -> str:
    """The table, the matched comparison where the searches allow it, and the paired tests."""
    rows = _conditions(runs)
    parts = [_rates(rows)]
    if matched := _matched(rows):
        parts.append(matched)
    parts.append(_tests(rows))
    steps = {
        run.config.name: read_json(run.path("atlas.json"))["steps"]
        for run in runs
        if run.is_done("atlas")
    }
    if steps:
        parts += [_over_k(steps), _pooled(list(steps.values()))]
    return "\n".join(parts)


def _conditions(runs: Sequence[Run]) -> list[Compared]:
    """MD of every run, and SD of the first before them where no run is SD's own.

    Raises InputError where the runs' prompts differ.
    """
    rows: list[Compared] = []
    prompts: list[str] | None = None
    for run in runs:
        run.needs("judge")
        evaluation = read_json(run.path("evaluation.json"))
        own = [
            c.prompt
            for c in read_completions(run.path("completions/md.jsonl"))
            if c.kind == "harmful"
        ]
        if prompts is not None and own != prompts:
            raise InputError(
                f"{run.folder} was tested on other prompts than {runs[0].folder}: they cannot be "
                "compared pair by pair"
            )
        prompts = own
        verdicts = read_jsonl(run.path("verdicts.jsonl"))
        if not rows and all(other.config.method != "sd" for other in runs):
            rows.append(_compared("sd", 1, "sd", evaluation, verdicts, []))
        method, name = run.config.method, run.config.name
        name = name if name == method else f"{method} ({name})"
        search = read_json(run.path("search.json")) if run.config.ids is None else {"trials": []}
        trials = [(t["refusal"], t["kl"]) for t in search["trials"] if t["kl"] is not None]
        rows.append(_compared(name, len(evaluation["ranks"]), "md", evaluation, verdicts, trials))
    return rows


def _compared(
    name: str,
    k: int,
    condition: str,
    evaluation: Mapping[str, Any],
    verdicts: Sequence[Mapping[str, str]],
    trials: list[tuple[float, float]],
) -> Compared:
    complied = [
        v["verdict"] == "complied"
        for v in verdicts
        if v["condition"] == condition and v["kind"] == "harmful"
    ]
    return Compared(name, k, evaluation["test"][condition], complied, trials)


def _rates(rows: Sequence[Compared]) -> str:
    table = plain_table(
        "test split, % [95 % interval]",
        "k",
        "ASR",
        "refusal",
        "babble",
        "refusal on harmless",
        "KL, nats a token",
    )
    for row in rows:
        names = ("asr", "refusal", "babble", "harmless_refusal")
        cells = [rate_text(row.test[name]) for name in names]
        table.add_row(row.name, str(row.k), *cells, f"{row.test['kl']:.3f}")
    return table_text(table)


def _matched(rows: Sequence[Compared]) -> str:
    """Least drift among trials that refuse at most so much, and least refusal at so much drift."""
    measured = [row for row in rows if row.trials]
    if len(measured) < 2:
        return ""
    table = plain_table("trials of the search")
    refusals, drifts = (0.5, 0.25, 0.1), (0.1, 0.3, 1.0)
    for level in refusals:
        table.add_column(f"least KL at refusal <= {level:.0%}", justify="right")
    for level in drifts:
        table.add_column(f"least refusal at KL <= {level:g}", justify="right")
    for row in measured:
        kls = [min((kl for r, kl in row.trials if r <= level), default=None) for level in refusals]
        least = [min((r for r, kl in row.trials if kl <= level), default=None) for level in drifts]
        table.add_row(
            row.name,
            *("-" if kl is None else f"{kl:.3f}" for kl in kls),
            *("-" if r is None else f"{r:.0%}" for r in least),
        )
    return table_text(table)


def _over_k(steps: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """ASR and babble on val prompts while directions are ablated one after another."""
    most = max(map(len, steps.values()))
    table = plain_table("val prompts: ASR (babble), %", *(f"k = {k}" for k in range(most)))
    for name, run_steps in steps.items():
        cells = [f"{100 * s['asr']:.0f} ({100 * s['babble']:.0f})" for s in run_steps]
        table.add_row(name, *cells, *[""] * (most - len(cells)))
    return table_text(table)


def _pooled(runs: Sequence[Sequence[Mapping[str, Any]]]) -> str:
    """Correlation with ASR over all steps of all runs, each measure relative to its k = 0."""
    lines = []
    for measure in ("compactness", "distance"):
        pairs = [
            (step[measure] / run[0][measure], step["asr"])
            for run in runs
            if run[0][measure]
            for step in run
        ]
        found = correlation([x for x, _ in pairs], [y for _, y in pairs])
        if found is not None:
            r, low, high = found
            lines.append(
                f"  {measure} of the harmful cluster and ASR over {len(pairs)} steps of "
                f"{len(runs)} runs: r {r:+.2f} [{low:+.2f}, {high:+.2f}]"
            )
    return "\n".join(lines) + "\n" if lines else ""


def _tests(rows: Sequence[Compared]) -> str:
    """Exact McNemar on compliance, pair by pair, corrected over all pairs (Holm)."""
    pairs = list(combinations(rows, 2))
    counts = [
        (
            sum(x and not y for x, y in zip(a.complied, b.complied, strict=True)),
            sum(y and not x for x, y in zip(a.complied, b.complied, strict=True)),
        )
        for a, b in pairs
    ]
    corrected = holm([mcnemar(*count) for count in counts])
    table = plain_table(
        "paired over the harmful test prompts", "first alone complied", "second alone", "p (Holm)"
    )
    for (a, b), (first, second), p in zip(pairs, counts, corrected, strict=True):
        table.add_row(f"{a.name} against {b.name}", str(first), str(second), p_text(p))
    return table_text(table)
