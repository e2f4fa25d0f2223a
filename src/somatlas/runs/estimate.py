"""How long a run takes, stage by stage: from its sizes, and from what was measured here so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from somatlas.runs.folder import Run
from somatlas.runs.settings import STAGES, Stage

# Seconds of one unit on the machine that docs/performance.md was measured on: how stages compare
# with one another. How fast this machine is, its own finished stages tell.
_SECONDS: Mapping[Stage, float] = {
    "represent": 0.034,  # a prompt
    "layers": 0.031,  # a prompt and candidate layer
    "map": 4.0,  # a map
    "search": 0.0035,  # a token of a reply
    "ablate": 0.0031,
    "judge": 0.0008,  # a token that is judged
    "cost": 0.0001,
    "atlas": 0.0017,  # a token, over all its ablations
}
_CONDITIONS = 3  # base, SD, MD
_ATLAS = 6 * 64 * 64 + 20 * 64 * 48  # tokens: steps on both sides, and each direction alone
_LAYERS = 0.8  # of a model's are candidates


def expected_seconds(run: Run) -> dict[Stage, float]:
    """Of every stage, were this the machine that the constants are of."""
    c, prompts = run.config, run.prompts
    train = len(prompts.train.harmful) + len(prompts.train.harmless)
    test = sum(map(len, (prompts.test.harmful, prompts.test.harmless, prompts.test.borderline)))
    replies = test * (_CONDITIONS + len(c.controls)) * c.samples
    layers = 1.0 if c.layer is not None else _LAYERS * 30
    units: dict[Stage, float] = {
        "represent": train,
        "layers": 2 * c.layer_prompts * layers,
        "map": 1,
        "search": 0 if c.ids else c.trials * c.val_prompts * (c.search_tokens or c.test_tokens),
        "ablate": replies * c.test_tokens,
        "judge": replies * c.test_tokens * (1 + len(c.more_judges)),
        "cost": replies * c.test_tokens,
        "atlas": _ATLAS * c.test_tokens / 64,
    }
    return {stage: _SECONDS[stage] * units[stage] for stage in STAGES}


def seconds_left(run: Run, stages: Sequence[Stage]) -> float | None:
    """Of those stages that are not done; None before any of the run's stages was measured here."""
    expected, known = expected_seconds(run), run.stages
    done = {s: known[s]["seconds"] for s in STAGES if run.is_done(s)}
    measured = sum(expected[stage] for stage in done)
    if not measured:
        return None
    pace: float = sum(done.values()) / measured
    return pace * sum(expected[stage] for stage in stages if stage not in done)


def as_time(seconds: float) -> str:
    """
    >>> as_time(40), as_time(200)
    ('40 s', '3 min')
    """
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def time_spent(run: Run, stages: Sequence[Stage]) -> str:
    """Seconds of each of the stages, and what took most, as a line; empty where none was done."""
    spent = {stage: float(run.stages[stage]["seconds"]) for stage in stages if run.is_done(stage)}
    total = sum(spent.values())
    if not total:
        return ""
    most = max(spent, key=spent.__getitem__)
    each = ", ".join(f"{stage} {seconds:.0f}" for stage, seconds in spent.items())
    return f"{as_time(total)} in all ({each}); most took {most}, {spent[most] / total:.0%}"
