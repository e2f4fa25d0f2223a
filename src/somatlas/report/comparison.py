"""Several runs side by side, on the same test prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from somatlas.directions.methods import floors
from somatlas.errors import InputError
from somatlas.evaluation.in_words import p_text
from somatlas.evaluation.rates import paired_tests
from somatlas.evaluation.tables import plain_table, table_text
from somatlas.evaluation.verdicts import VerdictRow, by_condition
from somatlas.numerics.statistics import correlation, mean_interval, wilson
from somatlas.report.floors import floor_text, kmeans_text
from somatlas.report.format import nats_text, rate_text
from somatlas.report.matched import least_table, remeasured_table, seed_groups
from somatlas.runs.contents import Contents
from somatlas.runs.folder import Run, chosen_layer
from somatlas.runs.remeasure import remeasured, val_trials

# What decides a rate, so that runs that differ in it are not compared.
_GROUND = (
    "judge",
    "judge_template",
    "judge_labels",
    "judge_settings",
    "coherence",
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


@dataclass(frozen=True)
class Compared:
    """One condition of one run: its rates, its verdicts, and KL by harmless reply."""

    name: str
    method: str
    k: int
    test: Mapping[str, Any]
    verdicts: Sequence[VerdictRow]
    drift: Sequence[float]


def comparison_text(runs: Sequence[Run]) -> str:
    """The table, what each further direction does, the matched comparison and the paired tests.

    Raises InputError for runs that were tested on other prompts or judged in another way.
    """
    rows = _conditions(runs)
    steps = {
        _name(run, runs): Contents(run.folder).atlas.steps for run in runs if run.is_done("atlas")
    }
    tests = paired_tests({row.name: row.verdicts for row in rows}, runs[0].config.seed)
    parts = [_rates(rows), _budgets(runs), _matched(runs, steps), _tests(tests)]
    parts += [floor_text(rows), kmeans_text(rows, tests)]
    if steps:
        measured = [run for run in runs if run.is_done("atlas")]
        models = [run.folder.parent.name for run in measured]
        parts += [_over_k(steps), _pooled(list(steps.values()), models)]
    return "\n".join(part for part in parts if part)


def check_comparable(runs: Sequence[Run]) -> None:
    """Raise InputError for what `comparison_text` would."""
    _conditions(runs)


def _conditions(runs: Sequence[Run]) -> list[Compared]:
    """MD of every run, and SD of each model before its first where no run of it is SD's own."""
    rows: list[Compared] = []
    with_sd = {run.folder.parent for run in runs if run.config.method == "sd"}
    asked: list[tuple[Any, ...]] | None = None
    folders = [run.folder.resolve() for run in runs]
    if twice := [folder for n, folder in enumerate(folders) if folder in folders[:n]]:
        raise InputError(f"run {twice[0]} is named twice: name each once")
    for run in runs:
        run.needs("judge")
        _check_ground(run, runs[0])
        contents = Contents(run.folder)
        evaluation, drift = contents.evaluation, contents.effects.kl_by_reply
        sides = by_condition(contents.verdicts)
        own = [(v.prompt_id, v.system, v.sample) for v in sides["md"] if v.kind == "harmful"]
        if asked is not None and own != asked:
            raise InputError(
                f"{run.folder} was tested on other prompts than {runs[0].folder}: they cannot be "
                "compared pair by pair"
            )
        asked = own
        if run.folder.parent not in with_sd:
            with_sd.add(run.folder.parent)
            name = _with_model("sd", run, runs)
            rows.append(Compared(name, "sd", 1, evaluation.test["sd"], sides["sd"], drift["sd"]))
        k = len(evaluation.ranks)
        md, method = evaluation.test["md"], run.config.method
        rows.append(Compared(_name(run, runs), method, k, md, sides["md"], drift["md"]))
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
    method, name = run.config.method, run.folder.name
    told = f"{method}, floor" if method in floors([method]) else method
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
        "incoherent",
        "off topic",
        "refusal on harmless",
        "KL, nats a token",
    )
    for row in rows:
        names = ("asr", "refusal", "babble", "off_topic", "harmless_refusal")
        cells = [rate_text(row.test[name]) for name in names]
        table.add_row(row.name, str(row.k), *cells, _drift_text(row.drift))
    return table_text(table)


def _drift_text(by_reply: Sequence[float]) -> str:
    """The mean over replies with a bootstrap interval over them."""
    return nats_text(*mean_interval(by_reply, seed=0)) if by_reply else "-"


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

    Over the searches' trials where they measured drift: on test prompts where all of them are
    measured again there (`somatlas.runs.remeasure`), else as val had it. Without drift in the
    searches, over the steps of k.
    """
    named = {_name(run, runs): run for run in runs}
    searched = {name: run for name, run in named.items() if val_trials(run)}
    again = {name: own for name, run in searched.items() if (own := remeasured(run)) is not None}
    if searched and len(again) == len(searched):
        unsearched = [name for name in named if name not in searched]
        return remeasured_table(seed_groups(searched, again)) + "".join(
            f"  not measured again: the search of {name} measured no drift (--objective asr,kl)\n"
            for name in unsearched
        )
    if len(searched) > 1:
        trials = {
            name: [{**t, "n": Contents(run.folder).search.val["n"]} for t in val_trials(run)]
            for name, run in searched.items()
        }
        return (
            least_table("least over the searches' trials, chosen and measured on val", trials)
            + "  these figures are chosen and measured on the same val prompts, and so too good: "
            "--remeasure measures the sets on test prompts\n"
        )
    walked = {name: [{**step, "pruned": False} for step in own[1:]] for name, own in steps.items()}
    if len(walked) < 2:
        return ""
    title = "least over the steps of k, chosen and measured on the same test prompts"
    return least_table(title, walked)


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
        "incoherent",
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
