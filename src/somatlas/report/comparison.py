"""Several runs side by side, on the same test prompts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from somatlas.comparators import FLOORS
from somatlas.errors import InputError
from somatlas.evaluation import paired_tests, read_jsonl
from somatlas.files import read_json
from somatlas.report.floors import floor_text, kmeans_text
from somatlas.report.tables import plain_table, table_text
from somatlas.report.words import p_text, rate_text
from somatlas.run import Run, chosen_layer
from somatlas.statistics import correlation, wilson

# What decides a rate, so that runs that differ in it are not compared.
_GROUND = (
    "judge",
    "judge_template",
    "judge_labels",
    "behaviour",
    "system",
    "thinking",
    "test_tokens",
    "samples",
    "temperature",
    "top_p",
)
# What a fair comparison keeps alike; a difference is named.
_BUDGET = (
    "model",
    "dtype",
    "seed",
    "train_prompts",
    "layer",
    "k",
    "candidates",
    "ids",
    "mode",
    "site",
    "tied_head",
    "trials",
    "objective",
    "max_kl",
    "val_prompts",
    "search_tokens",
    "selection_prompts",
    "reply_models",
)
_MEASURES = {
    "compactness": "mean distance of the harmful cluster to its centroid",
    "harmless_compactness": "the same of the harmless cluster",
    "ratio": "harmful over harmless",
    "distance": "distance of the two centroids",
}
_REFUSALS, _DRIFTS = (0.5, 0.25, 0.1), (0.1, 0.3, 1.0)


@dataclass(frozen=True)
class Compared:
    """One condition of one run: its rates, and its rows of verdicts.jsonl."""

    name: str
    method: str
    k: int
    test: Mapping[str, Any]
    verdicts: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Point:
    """Refusal and KL of one ablation, over n prompts."""

    refusal: float
    kl: float
    n: int


def comparison_text(runs: Sequence[Run]) -> str:
    """The table, what each further direction does, the matched comparison and the paired tests.

    Raises InputError for runs that were tested on other prompts or judged in another way.
    """
    rows = _conditions(runs)
    steps = {
        _name(run, runs): read_json(run.path("atlas.json"))["steps"]
        for run in runs
        if run.is_done("atlas")
    }
    tests = paired_tests({row.name: row.verdicts for row in rows}, runs[0].config.seed)
    parts = [_rates(rows), _budgets(runs), _matched(runs, steps), _tests(tests)]
    parts += [floor_text(rows), kmeans_text(rows, tests)]
    if steps:
        measured = [run for run in runs if run.is_done("atlas")]
        models = [run.folder.parent.name for run in measured]
        parts += [_over_k(steps), _pooled(list(steps.values()), models)]
    return "\n".join(part for part in parts if part)


def _conditions(runs: Sequence[Run]) -> list[Compared]:
    """MD of every run, and SD of each model before its first where no run of it is SD's own."""
    rows: list[Compared] = []
    with_sd = {run.folder.parent for run in runs if run.config.method == "sd"}
    asked: list[tuple[Any, ...]] | None = None
    for run in runs:
        run.needs("judge")
        _check_ground(run, runs[0])
        evaluation = read_json(run.path("evaluation.json"))
        verdicts = read_jsonl(run.path("verdicts.jsonl"))
        sides = {c: [v for v in verdicts if v["condition"] == c] for c in ("sd", "md")}
        own = [
            (v["prompt"], v["system"], v["sample"]) for v in sides["md"] if v["kind"] == "harmful"
        ]
        if asked is not None and own != asked:
            raise InputError(
                f"{run.folder} was tested on other prompts than {runs[0].folder}: they cannot be "
                "compared pair by pair"
            )
        asked = own
        if run.folder.parent not in with_sd:
            with_sd.add(run.folder.parent)
            name = _with_model("sd", run, runs)
            rows.append(Compared(name, "sd", 1, evaluation["test"]["sd"], sides["sd"]))
        k = len(evaluation["ranks"])
        name = _name(run, runs)
        rows.append(Compared(name, run.config.method, k, evaluation["test"]["md"], sides["md"]))
    return rows


def _check_ground(run: Run, first: Run) -> None:
    for setting in _GROUND:
        here, there = (getattr(one.config, setting) for one in (run, first))
        if here != there:
            raise InputError(
                f"{run.folder} was tested with {setting} {here}, {first.folder} with {there}: "
                "their rates cannot be compared"
            )


def _name(run: Run, runs: Sequence[Run]) -> str:
    """The method, that it is a floor, and the run's name and model where they tell more."""
    method, name = run.config.method, run.config.name
    told = f"{method}, floor" if method in FLOORS else method
    return _with_model(told if name == method else f"{told} ({name})", run, runs)


def _with_model(name: str, run: Run, runs: Sequence[Run]) -> str:
    folders = {other.folder.parent for other in runs}
    if len(folders) == 1:
        return name
    alike = len({folder.name for folder in folders}) < len(folders)
    return f"{name}, {run.folder.parent if alike else run.folder.parent.name}"


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


def _budgets(runs: Sequence[Run]) -> str:
    """What the runs do not have in common, apart from the method."""

    def value(run: Run, setting: str) -> Any:
        return chosen_layer(run) if setting == "layer" else getattr(run.config, setting)

    lines = []
    for setting in _BUDGET:
        values = dict.fromkeys(str(value(run, setting)) for run in runs)
        if len(values) > 1:
            lines.append(f"  not alike: {setting} ({', '.join(values)})\n")
    return "".join(lines)


def _matched(runs: Sequence[Run], steps: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Least drift among ablations that refuse at most so much, and least refusal at so much drift.

    Over the searches' trials where they measured drift, else over the steps of k.
    """
    trials = {_name(run, runs): _trial_points(run) for run in runs}
    trials = {name: points for name, points in trials.items() if points}
    if len(trials) > 1:
        return _matched_table("least over the searches' trials, on val prompts", trials)
    walked = {
        name: [Point(s["refusal"], s["kl"], s["n"]) for s in own[1:]] for name, own in steps.items()
    }
    return (
        _matched_table("least over the steps of k, on test prompts", walked)
        if len(walked) > 1
        else ""
    )


def _trial_points(run: Run) -> list[Point]:
    if run.config.ids is not None:
        return []
    search = read_json(run.path("search.json"))
    n = search["val"]["n"]
    return [Point(t["refusal"], t["kl"], n) for t in search["trials"] if t["kl"] is not None]


def _matched_table(title: str, points: Mapping[str, Sequence[Point]]) -> str:
    table = plain_table(
        "matched",
        *(f"KL at refusal <= {level:.0%}" for level in _REFUSALS),
        *(f"refusal at KL <= {level:g}" for level in _DRIFTS),
    )
    for name, own in points.items():
        drifts = [_least(p.kl for p in own if p.refusal <= level) for level in _REFUSALS]
        refusals = [_least(p.refusal for p in own if p.kl <= level) for level in _DRIFTS]
        n = own[0].n
        table.add_row(
            name,
            *("-" if kl is None else f"{kl:.3f}" for kl in drifts),
            *("-" if share is None else str(wilson(round(share * n), n)) for share in refusals),
        )
    return f"  {title}\n{table_text(table)}"


def _least(values: Iterable[float]) -> float | None:
    return min(values, default=None)


def _tests(tests: Sequence[Mapping[str, Any]]) -> str:
    """Every two conditions over the same prompts: differences, and exact McNemar's p (Holm)."""
    table = plain_table(
        "second against first, points [95 %]", "ASR", "p (Holm)", "refusal", "p (Holm)"
    )
    pairs: dict[tuple[str, str], dict[str, list[str]]] = {}
    for test in tests:
        gap, low, high = (f"{100 * test[name]:+.0f}" for name in ("difference", "low", "high"))
        outcomes = pairs.setdefault((test["second"], test["first"]), {})
        outcomes[test["outcome"]] = [f"{gap} [{low}, {high}]", p_text(test["p_holm"])]
    for (second, first), outcomes in pairs.items():
        table.add_row(f"{second} against {first}", *outcomes["asr"], *outcomes["refusal"])
    return table_text(table)


def _over_k(steps: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """What each further direction does, the chosen ones first."""
    table = plain_table(
        "directions ablated one after another, %",
        "k",
        "ASR",
        "refusal",
        "babble",
        "harmless answered",
        "KL, nats a token",
    )
    for name, own in steps.items():
        for step in own:
            asr = wilson(round(step["asr"] * step["n"]), step["n"])
            shares = [f"{step[s]:.0%}" for s in ("refusal", "babble", "harmless_answered")]
            table.add_row(name, str(step["k"]), str(asr), *shares, f"{step['kl']:.3f}")
    return table_text(table)


def _pooled(runs: Sequence[Sequence[Mapping[str, Any]]], models: Sequence[str]) -> str:
    """Correlation with ASR over all steps of all runs, each measure relative to its k = 0.

    Runs of one model share their unablated point, which counts once. Without an interval: the
    steps of a run are nested, and runs are few.
    """
    lines = []
    for measure, name in _MEASURES.items():
        pairs, started = [], set()
        for run, model in zip(runs, models, strict=True):
            if not run[0][measure] or any(step[measure] is None for step in run):
                continue
            for step in run if model not in started else run[1:]:
                pairs.append((step[measure] / run[0][measure], step["asr"]))
            started.add(model)
        r = correlation([x for x, _ in pairs], [y for _, y in pairs])
        if r is not None:
            lines.append(f"  {name}: r {r:+.2f} over {len(pairs)} steps")
    if not lines:
        return ""
    head = (
        f"geometry and ASR over the steps of {len(runs)} runs, each relative to the unablated "
        "model, which counts once a model (steps are nested: no interval)"
    )
    return "\n".join([head, *lines]) + "\n"
