"""Drift at a given refusal and refusal at a given drift, from what runs' searches found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from somatlas.evaluation.pooling import pooled_mean, pooled_rate
from somatlas.evaluation.tables import plain_table, table_text
from somatlas.numerics.statistics import wilson
from somatlas.report.format import nats_text
from somatlas.runs.folder import Run
from somatlas.runs.remeasure import LEVELS, Level, Measured, chosen_trial

Found = Mapping[Level, tuple[Mapping[str, Any], Measured]]


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed alone: what they are called, and what each chose."""

    name: str
    runs: Sequence[Found]


def seed_groups(named: Mapping[str, Run], found: Mapping[str, Found]) -> list[Group]:
    """The runs by name, those that differ in nothing that decides a result but the seed as one."""
    groups: dict[str, list[str]] = {}
    for name, run in named.items():
        settings = run.config.settings_until("judge")
        alike = {setting: settings[setting] for setting in sorted(settings.keys() - {"seed"})}
        groups.setdefault(repr((run.folder.parent, alike)), []).append(name)
    several = [names[0] for names in groups.values() if len(names) > 1]
    methods = Counter(named[name].config.method for name in several)

    def title(names: Sequence[str]) -> str:
        method = named[names[0]].config.method
        if len(names) == 1:
            return names[0]
        return f"{method if methods[method] == 1 else names[0]}, {len(names)} seeds"

    return [Group(title(names), [found[name] for name in names]) for names in groups.values()]


def remeasured_table(groups: Sequence[Group]) -> str:
    """What was chosen on val at each level, there and on test prompts, with 95 % intervals."""
    table = plain_table(
        "chosen on val, % [95 %]",
        "least at",
        "seeds",
        "ranks",
        "refusal, val",
        "KL, val",
        "refusal, test",
        "KL, test",
    )
    for group in groups:
        for level in LEVELS:
            chosen = [run[level] for run in group.runs if level in run]
            if not chosen:
                table.add_row(group.name, str(level), *("-" for _ in range(6)))
                continue
            trials, measured = [trial for trial, _ in chosen], [own for _, own in chosen]
            drift = pooled_mean([own.kl for own in measured])
            several = len(group.runs) > 1
            table.add_row(
                group.name,
                str(level),
                f"{len(chosen)} of {len(group.runs)}" if several else "1",
                "-" if several else " ".join(map(str, trials[0]["ranks"])),
                f"{100 * _mean(trials, 'refusal'):.0f}",
                f"{_mean(trials, 'kl'):.3f}",
                str(pooled_rate([own.refused for own in measured])),
                "-" if drift is None else nats_text(*drift),
            )
    return (
        "  least over the searches' trials: chosen on val prompts, measured again on test prompts\n"
        + table_text(table)
    )


def least_table(title: str, points: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """The least at each level, where it is measured on the prompts it is chosen on.

    points : per name what has `refusal`, `kl`, `pruned` and `n`, the prompts that refusal is of.
    """
    of = {kind: [level for level in LEVELS if level.of == kind] for kind in ("refusal", "kl")}
    table = plain_table(
        "matched",
        *(f"KL at {level}" for level in of["refusal"]),
        *(f"refusal at {level}" for level in of["kl"]),
    )
    for name, own in points.items():
        drifts = [chosen_trial(own, level) for level in of["refusal"]]
        refusals = [chosen_trial(own, level) for level in of["kl"]]
        table.add_row(
            name,
            *("-" if point is None else f"{point['kl']:.3f}" for point in drifts),
            *(
                "-" if p is None else str(wilson(round(p["refusal"] * p["n"]), p["n"]))
                for p in refusals
            ),
        )
    return f"  {title}\n{table_text(table)}"


def _mean(trials: Sequence[Mapping[str, Any]], name: str) -> float:
    return sum(float(trial[name]) for trial in trials) / len(trials)
