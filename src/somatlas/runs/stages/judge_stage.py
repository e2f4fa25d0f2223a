"""Verdicts on every reply, by every judge, and the evaluation of all of them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from somatlas.evaluation.evaluation import summarised
from somatlas.evaluation.table import evaluation_table
from somatlas.evaluation.verdicts import (
    Reading,
    Said,
    judgements_of,
    readings_of,
    replies_of,
    thoughts_of,
    verdict_rows,
    write_verdicts,
)
from somatlas.files import write_text
from somatlas.fleet import Work, deal, flat
from somatlas.judges.keyword import matcher
from somatlas.judges.registry import check_missing, is_asked_by_driver
from somatlas.judges.verdict import Judge, Judgement
from somatlas.progress import Advance, ignore, progress
from somatlas.runs.answer_check import check_record
from somatlas.runs.contents import Contents, Judging
from somatlas.runs.folder import Run, chosen_layer
from somatlas.runs.recipes import published_for
from somatlas.runs.settings import STAGES

_PIECE = 64  # replies that a judge is asked of at a time


def judge_stage(run: Run) -> None:
    """Judge every condition's completions; the first judge's verdicts make the table."""
    run.needs("ablate")
    start = time.monotonic()
    config, completions = run.config, Contents(run.folder).completions
    every = [one for side in completions.values() for one in side]
    replies, aloud = replies_of(every), thoughts_of(every)
    check, specs = check_record(run), list(dict.fromkeys((config.judge, *config.more_judges)))
    found: dict[str, list[Judgement]] = {}
    records = {}
    with progress("judge", len(every) * len(specs)) as advance:
        for spec in specs:
            said, judge = judged_by(run, spec, replies, check, advance)
            check_missing(judge, said, config.max_missing)
            found[judge.name], records[judge.name] = said, judge.record
    thoughts, _ = judged_by(run, specs[0], list(aloud.values()), check, ignore)
    pieces = deal([one.reply for one in every], _PIECE)
    readings = flat(run.fleet.prepared(reading_work, None).each(pieces))
    rows = verdict_rows(completions, found, dict(zip(aloud, thoughts, strict=True)), readings)
    write_verdicts(run.path("verdicts.jsonl"), rows)
    Judging(
        judge=next(iter(found)), coherence=None if check is None else dict(check), judges=records
    ).write(run.folder)
    done = [stage for stage in STAGES[: STAGES.index("judge")] if run.is_done(stage)]
    seconds: dict[str, float] = {stage: run.stages[stage]["seconds"] for stage in done}
    _summarise(run, {**seconds, "judge": round(time.monotonic() - start, 2)})


@dataclass(frozen=True)
class ToldOf:
    """What is told of a judge that a worker has."""

    name: str
    record: dict[str, Any]


def judged_by(
    run: Run, spec: str, said: Sequence[Said], check: Mapping[str, Any] | None, advance: Advance
) -> tuple[list[Judgement], ToldOf]:
    """What a judge says, and what is to be told of it: asked by the run's fleet, or by the driver
    where it is a server's, whose answers the run keeps and whose key need not leave this machine.
    """
    if is_asked_by_driver(spec):
        judge = run.judges.get(spec, None)
        found = judgements_of(judge, said)
        advance(len(found))
        return found, ToldOf(judge.name, dict(judge.record))
    pieces = run.fleet.prepared(judge_work, (spec, check)).each(deal(said, _PIECE), advance)
    found = flat(pieces)
    return found, run.fleet.prepared(told_work, (spec, check)).one(None)


def judge_work(run: Run, of: tuple[str, Mapping[str, Any] | None]) -> Work[Said, Judgement]:
    """A judge, by its name and the record of the check of answers."""
    judge = _judge(run, *of)

    def work(said: Sequence[Said], advance: Advance) -> list[Judgement]:
        found = judgements_of(judge, said)
        advance(len(found))
        return found

    return work


def told_work(run: Run, of: tuple[str, Mapping[str, Any] | None]) -> Work[None, ToldOf]:
    """What is told of the same judge."""
    judge = _judge(run, *of)
    return lambda items, _advance: [ToldOf(judge.name, dict(judge.record)) for _ in items]


def _judge(run: Run, spec: str, check: Mapping[str, Any] | None) -> Judge:
    run.use_check(check)
    return run.judges.get(spec, run.answer_check)


def reading_work(run: Run, _shared: None) -> Work[str, Reading]:
    """What can be read off replies."""
    shows, tokens = matcher(run.config.behaviour), run.config.test_tokens
    return lambda replies, _advance: readings_of(run.lm, replies, shows, tokens)


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
