"""What each condition costs: drift, length, repetition, and what the user asks for besides."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from somatlas.evaluation.cost import Measure, reply_measures, window_losses
from somatlas.measures.drift import MORE_REPLY_TOKENS, REPLY_TOKENS
from somatlas.errors import InputError
from somatlas.evaluation.evaluation import CONDITIONS, read_completions, read_jsonl, verdict_shares
from somatlas.files import read_json, read_text, write_json
from somatlas.evaluation.harness import Harness
from somatlas.judges import Verdict
from somatlas.progress import progress
from somatlas.runs.folder import Run
from somatlas.runs.stages.ablate_stage import chosen_directions, conditions


def cost_stage(run: Run) -> None:
    """Write cost.json: a summary of every measure."""
    run.needs("judge")
    config, lm = run.config, run.lm
    text = None if config.perplexity is None else perplexity_text(config.perplexity)
    harness = None
    if config.tasks:
        harness = Harness(config.tasks, config.task_folder, config.task_limit, config.seed)
    effects = read_json(run.path("ablate.json"))
    verdicts = read_jsonl(run.path("verdicts.jsonl"))
    measures = [
        _drift(REPLY_TOKENS, effects["kl_by_reply"]),
        _drift(MORE_REPLY_TOKENS, effects[f"kl_{MORE_REPLY_TOKENS}_by_reply"]),
        *(_refusals(verdicts, kind) for kind in ("harmless", "borderline")),
        *reply_measures(lm, {c: _harmless(run, c) for c in CONDITIONS}),
    ]
    losses: dict[str, list[float]] = {}
    scores: dict[str, dict[str, list[float]]] = {}
    if text is not None or harness is not None:
        _, vectors = chosen_directions(run)
        with progress("cost", len(CONDITIONS)) as advance:
            for condition, projection in conditions(run, vectors).items():
                with lm.ablate(projection):
                    if text is not None:
                        losses[condition] = window_losses(lm, text)
                    if harness is not None:
                        scores[condition] = harness.scores(lm, config.batch_size)
                advance(1)
    if losses:
        measures.append(Measure("text loss", "nats a token", losses))
    for task in scores.get("base", {}):
        measures.append(Measure(task, "score", {c: scores[c][task] for c in scores}))
    found = [one.summary(config.seed) for one in measures if one.values["base"]]
    write_json(run.path("cost.json"), {"measures": found})


def perplexity_text(path: str) -> str:
    """The text of --perplexity; raises InputError where it cannot be read or is empty."""
    text = read_text(Path(path), "perplexity text")
    if not text.strip():
        raise InputError(f"perplexity text {path} is empty")
    return text


def _drift(tokens: int, kl: Mapping[str, list[float]]) -> Measure:
    return Measure(
        f"KL on harmless replies, {tokens} tokens",
        "nats a token",
        {"base": [0.0] * len(kl["sd"]), **{c: kl[c] for c in ("sd", "md")}},
    )


def _refusals(verdicts: Sequence[Mapping[str, Any]], kind: str) -> Measure:
    """Over-refusal: of each prompt with a verdict in all conditions, its share of refusals."""
    sides = {
        c: verdict_shares([v for v in verdicts if v["condition"] == c], Verdict.REFUSED, kind)
        for c in CONDITIONS
    }
    common = [p for p in sides["base"] if all(p in side for side in sides.values())]
    values = {c: [side[p] for p in common] for c, side in sides.items()}
    return Measure(f"refusal on {kind} prompts", "share", values)


def _harmless(run: Run, condition: str) -> list[list[str]]:
    """The replies to each harmless prompt."""
    replies: dict[str, list[str]] = defaultdict(list)
    for one in read_completions(run.path(f"completions/{condition}.jsonl")):
        if one.kind == "harmless":
            replies[one.prompt].append(one.reply)
    return list(replies.values())
