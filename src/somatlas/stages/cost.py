"""What each condition costs: drift, length, repetition, and what the user asks for besides."""

from __future__ import annotations

from pathlib import Path

from somatlas.capability import Measure, reply_measures, window_losses
from somatlas.errors import InputError
from somatlas.evaluation import CONDITIONS, read_completions
from somatlas.files import read_json, write_json
from somatlas.harness import Harness
from somatlas.progress import progress
from somatlas.run import Run
from somatlas.stages.ablate import chosen_directions, conditions


def cost_stage(run: Run) -> None:
    """Write cost.json: a summary of every measure."""
    run.needs("ablate")
    config, lm = run.config, run.lm
    text = None if config.perplexity is None else _text(Path(config.perplexity))
    harness = None
    if config.tasks:
        harness = Harness(config.tasks, config.task_folder, config.task_limit, config.seed)
    kl = read_json(run.path("ablate.json"))["kl_by_reply"]
    kl["base"] = [0.0] * len(kl["sd"])
    harmless = {
        c: [
            r.reply
            for r in read_completions(run.path(f"completions/{c}.jsonl"))
            if r.kind == "harmless"
        ]
        for c in CONDITIONS
    }
    measures = [
        Measure("KL on harmless replies", "nats a token", {c: kl[c] for c in CONDITIONS}),
        *reply_measures(lm, harmless),
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
    write_json(run.path("cost.json"), {"measures": [one.summary(config.seed) for one in measures]})


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"perplexity text {path} cannot be read ({error})") from None
