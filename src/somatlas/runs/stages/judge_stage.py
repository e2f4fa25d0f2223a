"""Verdicts on every reply, by every judge, and the evaluation of all of them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from somatlas.evaluation.evaluation import summarised
from somatlas.evaluation.table import evaluation_table
from somatlas.evaluation.verdicts import judged, write_verdicts
from somatlas.files import write_text
from somatlas.judges.keyword import matcher
from somatlas.runs.contents import Contents, Judging
from somatlas.runs.folder import Run, chosen_layer
from somatlas.runs.recipes import published_for
from somatlas.runs.settings import STAGES


def judge_stage(run: Run) -> None:
    """Judge every condition's completions; the first judge's verdicts make the table."""
    run.needs("ablate")
    start = time.monotonic()
    config, contents = run.config, Contents(run.folder)
    check = run.answer_check
    names = dict.fromkeys((config.judge, *config.more_judges))
    judges = [run.judges.get(name, check) for name in names]
    rows = judged(
        run.lm,
        contents.completions,
        judges,
        shows=matcher(config.behaviour),
        tokens=config.test_tokens,
        max_missing=config.max_missing,
    )
    write_verdicts(run.path("verdicts.jsonl"), rows)
    Judging(
        judge=judges[0].name,
        coherence=None if check is None else check.record,
        judges={judge.name: dict(judge.record) for judge in judges},
    ).write(run.folder)
    done = [stage for stage in STAGES[: STAGES.index("judge")] if run.is_done(stage)]
    seconds: dict[str, float] = {stage: run.stages[stage]["seconds"] for stage in done}
    _summarise(run, {**seconds, "judge": round(time.monotonic() - start, 2)})


def _summarise(run: Run, seconds: Mapping[str, float]) -> None:
    """Write evaluation.json and table.txt."""
    contents, config = Contents(run.folder), run.config
    evaluation = summarised(
        contents.verdicts,
        contents.effects,
        contents.judging.judges,
        model=config.model,
        seed=config.seed,
        layer=chosen_layer(run),
        seconds=seconds,
        search=_search_scores(run),
        published=published_for(config),
    )
    evaluation.write(run.folder)
    text = evaluation_table(
        evaluation,
        gentle=config.layer is not None or contents.layers.kl_below_limit,
        other_behaviour=config.behaviour is not None,
    )
    write_text(run.path("table.txt"), text)


def _search_scores(run: Run) -> dict[str, Any] | None:
    """ASR of the winner on val, on the selection prompts, and how much val promised too much."""
    if run.config.ids is not None:
        return None
    found = Contents(run.folder).search
    scores = {
        "val_asr": found.val["asr"],
        "val_n": found.val["n"],
        "trials": len(found.trials),
        "max_kl": found.max_kl,
    }
    if found.selection is not None:
        chosen = {name: found.selection[name] for name in ("asr", "n", "optimism")}
        scores |= {f"selection_{name}": value for name, value in chosen.items()}
    return scores
