"""What each condition costs: drift, length, repetition, and what the user asks for besides."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from somatlas.ablation import Projection
from somatlas.completions.completion import Completion
from somatlas.errors import InputError
from somatlas.evaluation.cost import (
    Cost,
    Extent,
    Measure,
    extents_of,
    reply_measures,
    window_losses,
)
from somatlas.evaluation.harness import Harness
from somatlas.evaluation.rates import verdict_shares
from somatlas.evaluation.verdicts import VerdictRow, by_condition
from somatlas.files import read_text
from somatlas.fleet import Work, deal
from somatlas.judges.verdict import Verdict
from somatlas.measures.drift import MORE_REPLY_TOKENS, REPLY_TOKENS
from somatlas.progress import Advance, progress
from somatlas.runs.contents import Contents
from somatlas.runs.folder import Run
from somatlas.runs.stages.ablate_stage import chosen_directions, conditions

_PIECE = 256  # replies whose extent is asked for at a time


def cost_stage(run: Run) -> None:
    """Write cost.json: a summary of every measure."""
    run.needs("judge")
    config, contents = run.config, Contents(run.folder)
    effects, sides = contents.effects, by_condition(contents.verdicts)
    replies = {c: _harmless(own) for c, own in contents.completions.items()}
    measures = [
        _drift(REPLY_TOKENS, effects.kl_by_reply),
        _drift(MORE_REPLY_TOKENS, effects.kl_32_by_reply),
        *(_refusals(sides, kind) for kind in ("harmless", "borderline")),
        *reply_measures(_extents(run, replies)),
    ]
    if config.perplexity is not None or config.tasks:
        measures += _capabilities(run)
    found = [one.summary(config.seed) for one in measures if one.values["base"]]
    Cost(measures=found).write(run.folder)


def _capabilities(run: Run) -> list[Measure]:
    """Loss on a text, and scores of tasks, under each condition."""
    config = run.config
    text = None if config.perplexity is None else perplexity_text(config.perplexity)
    _, vectors = chosen_directions(run)
    of = Capable(text, conditions(run, vectors))
    with progress("cost", len(of.edits)) as advance:
        pieces = deal(list(of.edits), 1)
        found = run.fleet.prepared(capability_work, of).each(pieces, advance)
        of_each = {name: one for name, (one,) in zip(of.edits, found, strict=True)}
    measures = []
    if text is not None:
        losses = {name: one.losses for name, one in of_each.items()}
        measures.append(Measure("text loss", "nats a token", losses))
    for task in of_each["base"].scores:
        scores = {name: one.scores[task] for name, one in of_each.items()}
        measures.append(Measure(task, "score", scores))
    return measures


@dataclass(frozen=True)
class Capable:
    """What is asked for besides: the text whose loss is taken, None for none, under each edit."""

    text: str | None
    edits: dict[str, Projection | None]


@dataclass(frozen=True)
class Capability:
    """Of one condition: loss of each window of the text, value of each example of each task."""

    losses: list[float]
    scores: dict[str, list[float]]


def capability_work(run: Run, of: Capable) -> Work[str, Capability]:
    """Capability under conditions."""
    c, harness = run.config, None
    if c.tasks:
        harness = Harness(c.tasks, c.task_folder, c.task_limit, c.seed)

    def work(names: Sequence[str], advance: Advance) -> list[Capability]:
        found = []
        for name in names:
            with run.lm.ablate(of.edits[name]):
                losses = [] if of.text is None else window_losses(run.lm, of.text)
                scores = {} if harness is None else harness.scores(run.lm, c.batch_size)
            found.append(Capability(losses, scores))
            advance(1)
        return found

    return work


def _extents(
    run: Run, replies: Mapping[str, Sequence[Sequence[str]]]
) -> dict[str, list[list[Extent]]]:
    """Of each condition, those of the replies to each prompt."""
    every = [text for prompts in replies.values() for texts in prompts for text in texts]
    pieces = run.fleet.prepared(extent_work, None).each(deal(every, _PIECE))
    found = (extent for piece in pieces for extent in piece)
    return {
        c: [[next(found) for _ in texts] for texts in prompts] for c, prompts in replies.items()
    }


def extent_work(run: Run, _shared: None) -> Work[str, Extent]:
    """The extents of replies."""
    return lambda replies, _advance: extents_of(run.lm, replies)


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
