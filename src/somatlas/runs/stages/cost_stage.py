"""What each condition costs: drift, length, repetition, and what the user asks for besides."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from somatlas.completions.completion import Completion
from somatlas.errors import InputError
from somatlas.evaluation.cost import Cost, Measure, reply_measures, window_losses
from somatlas.evaluation.harness import Harness
from somatlas.evaluation.rates import verdict_shares
from somatlas.evaluation.verdicts import VerdictRow, by_condition
from somatlas.files import read_text
from somatlas.judges.verdict import Verdict
from somatlas.measures.drift import MORE_REPLY_TOKENS, REPLY_TOKENS
from somatlas.progress import progress
from somatlas.runs.contents import Contents
from somatlas.runs.folder import Run
from somatlas.runs.stages.ablate_stage import chosen_directions, conditions


def cost_stage(run: Run) -> None:
    """Write cost.json: a summary of every measure."""
    run.needs("judge")
    config, lm, contents = run.config, run.lm, Contents(run.folder)
    text = None if config.perplexity is None else perplexity_text(config.perplexity)
    harness = None
    if config.tasks:
        harness = Harness(config.tasks, config.task_folder, config.task_limit, config.seed)
    effects, sides = contents.effects, by_condition(contents.verdicts)
    measures = [
        _drift(REPLY_TOKENS, effects.kl_by_reply),
        _drift(MORE_REPLY_TOKENS, effects.kl_32_by_reply),
        *(_refusals(sides, kind) for kind in ("harmless", "borderline")),
        *reply_measures(lm, {c: _harmless(own) for c, own in contents.completions.items()}),
    ]
    losses: dict[str, list[float]] = {}
    scores: dict[str, dict[str, list[float]]] = {}
    if text is not None or harness is not None:
        _, vectors = chosen_directions(run)
        edits = conditions(run, vectors)
        with progress("cost", len(edits)) as advance:
            for condition, projection in edits.items():
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
    Cost(measures=found).write(run.folder)


def perplexity_text(path: str) -> str:
    """The text of --perplexity; raises InputError where it cannot be read or is empty."""
    text = read_text(Path(path), "perplexity text")
    if not text.strip():
        raise InputError(f"perplexity text {path} is empty")
    return text


def _drift(tokens: int, kl: Mapping[str, Sequence[float]]) -> Measure:
    """The model as it is does not drift from itself."""
    replies = max(map(len, kl.values()))
    values = {c: [0.0] * replies if c == "base" else own for c, own in kl.items()}
    return Measure(f"KL on harmless replies, {tokens} tokens", "nats a token", values)


def _refusals(sides: Mapping[str, Sequence[VerdictRow]], kind: str) -> Measure:
    """Over-refusal: of each prompt with a verdict in all conditions, its share of refusals."""
    shares = {c: verdict_shares(rows, Verdict.REFUSED, kind) for c, rows in sides.items()}
    common = [p for p in shares["base"] if all(p in side for side in shares.values())]
    values = {c: [side[p] for p in common] for c, side in shares.items()}
    return Measure(f"refusal on {kind} prompts", "share", values)


def _harmless(completions: Sequence[Completion]) -> list[list[str]]:
    """The replies to each harmless prompt."""
    replies: dict[str, list[str]] = defaultdict(list)
    for one in completions:
        if one.kind == "harmless":
            replies[one.prompt_id].append(one.reply)
    return list(replies.values())
