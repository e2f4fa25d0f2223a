"""Replies of the model as it is, without SD, and without the chosen directions."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from torch import Tensor

from somatlas.directions import DirectionSet
from somatlas.drift import Drift
from somatlas.evaluation import CONDITIONS, Completion, read_completions
from somatlas.files import read_json, write_json, write_jsonl
from somatlas.generation import generate
from somatlas.interventions import Projection
from somatlas.leak import leak
from somatlas.progress import progress
from somatlas.prompts.sets import spread, texts
from somatlas.run import Run, ranks_within

_DRIFT_PROMPTS = 32  # harmless test prompts whose replies' KL is measured


def ablate_stage(run: Run) -> None:
    """Completions of every condition; those finished before an interruption stay."""
    run.needs("map")
    config, lm = run.config, run.lm
    ranks, vectors = chosen_directions(run)
    single = DirectionSet.load(run.path("single_direction.safetensors"))
    projections = {
        "base": None,
        "sd": Projection(single.vectors),
        "md": Projection(vectors, config.mode),
    }
    kinds = {
        "harmful": run.prompts.positive["test"],
        "harmless": run.prompts.negative["test"],
        "borderline": run.prompts.borderline["test"],
    }
    rows = [(kind, prompt) for kind, prompts in kinds.items() for prompt in prompts]
    if run.stages.get("ablate", {}).get("ranks", ranks) != ranks:  # the search went on since
        run.path("completions/md.jsonl").unlink(missing_ok=True)
    run.begin("ablate", ranks=ranks)
    with progress("ablate", len(rows) * len(CONDITIONS)) as advance:
        for condition, projection in projections.items():
            path = run.path(f"completions/{condition}.jsonl")
            if path.exists():  # finished before an interruption
                advance(len(rows))
                continue
            with lm.ablate(projection):
                replies = generate(
                    lm,
                    [prompt.text for _, prompt in rows],
                    max_new_tokens=config.test_tokens,
                    batch_size=config.batch_size,
                    advance=advance,
                )
            completions = [
                Completion(kind, prompt.category, prompt.text, reply)
                for (kind, prompt), reply in zip(rows, replies, strict=True)
            ]
            write_jsonl(path, map(asdict, completions))
    own = [c for c in read_completions(run.path("completions/base.jsonl")) if c.kind == "harmless"]
    own = spread(own, _DRIFT_PROMPTS)
    drift = Drift(lm, [c.prompt for c in own], [c.reply for c in own], config.batch_size)
    kl, leaks = {}, {}
    for condition, projection in projections.items():
        kl[condition] = 0.0 if projection is None else drift.under(projection)
        leaks[condition] = 0.0
        if projection is not None:
            leaks[condition] = leak(lm, texts(kinds["harmful"]), projection, config.batch_size)
    write_json(
        run.path("ablate.json"),
        {
            "ranks": ranks,
            "kl": kl,
            "kl_replies": len(own),
            "kl_tokens": drift.n_tokens,
            "leak": leaks,
        },
    )


def chosen_directions(run: Run) -> tuple[list[int], Tensor]:
    """Ranks to ablate and their vectors: the user's, or what the search found."""
    config = run.config
    path = Path(config.directions) if config.directions else run.path("directions.safetensors")
    directions = DirectionSet.load(path)
    if config.ids is None:
        run.needs("search")
        ids = read_json(run.path("search.json"))["ranks"]
    else:
        ids = config.ids
    ranks = ranks_within(ids, len(directions))
    return ranks, directions.vectors[ranks]
