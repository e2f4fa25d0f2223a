"""What the points of a sweep measured: a row each, and pooled over seeds along an axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from somatlas.evaluation.evaluation import OUTCOMES, read_jsonl, verdict_shares
from somatlas.evaluation.pooling import pooled_mean, pooled_rate
from somatlas.files import read_json
from somatlas.judges.verdict import Verdict
from somatlas.numerics.statistics import mean_interval, wilson
from somatlas.runs.folder import Run

# Rates of harmful test prompts that are pooled; what else evaluation.json has stays with its point.
POOLED: Mapping[str, Verdict] = {
    **OUTCOMES,
    "babble": Verdict.INCOHERENT,
    "off_topic": Verdict.OFF_TOPIC,
}
MEASURES = (*POOLED, "kl")


@dataclass(frozen=True)
class Measured:
    """One finished point: its row of sweep.json, and what its rates are made of.

    cells : per measure the value of each prompt, or of each harmless reply, by what it is of.
    """

    values: Mapping[str, str]
    row: Mapping[str, Any]
    cells: Mapping[str, Mapping[str, float]]


def measured(run: Run, values: Mapping[str, str]) -> Measured:
    """Read a judged run."""
    evaluation, ablation = (read_json(run.path(f"{n}.json")) for n in ("evaluation", "ablate"))
    conditions = {
        condition: {**evaluation["test"][condition], "kl": _drift(ablation, condition, run)}
        for condition in ("sd", "md")
    }
    row = {
        "name": run.folder.name,
        "settings": dict(values),
        "layer": evaluation["layer"],
        "ranks": evaluation["ranks"],
        **_search_rates(run),
        "test": conditions["md"],
        "sd": conditions["sd"],
    }
    verdicts = [v for v in read_jsonl(run.path("verdicts.jsonl")) if v["condition"] == "md"]
    cells = {name: verdict_shares(verdicts, v, "harmful") for name, v in POOLED.items()}
    replies = ablation["kl_by_reply"]["md"]
    return Measured(values, row, {**cells, "kl": {str(n): kl for n, kl in enumerate(replies)}})


def pooled_lines(points: Sequence[Measured], x: str, parts: Sequence[str]) -> list[dict[str, Any]]:
    """Lines along x, one for each combination of the settings in parts; seeds are pooled.

    Each place on a line has `seeds` and, per measure, its interval: one point's is the one of its
    row; of several the one over prompts and seeds (`somatlas.evaluation.pooling`), with each
    seed's own value in `by_seed`.
    """
    lines: dict[tuple[str, ...], dict[str, list[Measured]]] = {}
    for point in points:
        line = lines.setdefault(tuple(point.values[part] for part in parts), {})
        line.setdefault(point.values[x], []).append(point)
    return [
        {
            "settings": dict(zip(parts, values, strict=True)),
            "points": [
                {
                    x: place,
                    "seeds": [p.values["seed"] for p in own if "seed" in p.values and x != "seed"],
                    **{name: _pooled(own, name) for name in MEASURES},
                }
                for place, own in line.items()
            ],
        }
        for values, line in lines.items()
    ]


def _pooled(points: Sequence[Measured], name: str) -> Mapping[str, Any]:
    if len(points) == 1:
        alone: Mapping[str, Any] = points[0].row["test"][name]
        return alone
    cells = [point.cells[name] for point in points]
    own = [next(iter(point.row["test"][name].values())) for point in points]
    if name in POOLED:
        return {**asdict(pooled_rate(cells)), "by_seed": own}
    n = len({key for one in cells for key in one})
    return {**_interval(pooled_mean(cells), n), "by_seed": own}


def _drift(ablation: Mapping[str, Any], condition: str, run: Run) -> dict[str, Any]:
    values = ablation["kl_by_reply"][condition]
    return _interval(mean_interval(values, run.config.seed) if values else None, len(values))


def _interval(found: tuple[float, float, float] | None, n: int) -> dict[str, Any]:
    mean, low, high = found or (None, None, None)
    return {"mean": mean, "low": low, "high": high, "n": n}


def _search_rates(run: Run) -> dict[str, Any]:
    """ASR on val, where it was the highest of many, and on the selection prompts."""
    if run.config.ids is not None:
        return {"val": None, "selection": None, "optimism": None}
    search = read_json(run.path("search.json"))
    selection = search["selection"]
    return {
        "val": _rate(search["val"]["asr"], search["val"]["n"]),
        "selection": selection and _rate(selection["asr"], selection["n"]),
        "optimism": selection and selection["optimism"],
    }


def _rate(share: float, n: int) -> dict[str, Any]:
    return asdict(wilson(round(share * n), n))
