"""Verdicts on every reply, by every judge."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from somatlas.evaluation.evaluation import CONDITIONS, Completion, read_completions
from somatlas.files import write_json, write_jsonl
from somatlas.judges import Judge, Judgement, matcher
from somatlas.judges.registry import check_missing
from somatlas.judges.repetition import repetition
from somatlas.models.language_model import LanguageModel
from somatlas.progress import progress
from somatlas.runs.folder import Run
from somatlas.runs.stages.answer_check import coherence_check

LATE = (32, 96, 256, 512)  # tokens within which a refusal is looked for


def judge_stage(run: Run) -> None:
    """Judge every condition's completions; the first judge's verdicts make the table."""
    run.needs("ablate")
    config = run.config
    completions = {c: read_completions(run.path(f"completions/{c}.jsonl")) for c in CONDITIONS}
    check = coherence_check(run)
    every = [one for side in completions.values() for one in side]
    names = list(dict.fromkeys((config.judge, *config.more_judges)))
    judges, found = [], []
    with progress("judge", len(every) * len(names)) as advance:
        for name in names:
            judge = run.judges.get(name, check)
            judgements = judge.judge([c.prompt for c in every], [c.reply for c in every])
            check_missing(judge, judgements, config.max_missing)
            judges.append(judge)
            found.append(judgements)
            advance(len(every))
    thoughts = _thoughts(judges[0], every)
    shows = matcher(config.behaviour)
    tokens = [n for n in LATE if n <= config.test_tokens]
    conditions = [name for name, side in completions.items() for _ in side]
    write_jsonl(
        run.path("verdicts.jsonl"),
        (
            {
                "condition": condition,
                **{name: getattr(one, name) for name in ("kind", "category", "prompt")},
                **{name: getattr(one, name) for name in ("system", "sample", "ended")},
                "verdict": own_judgements[0].verdict,
                "judges": {j.name: _plain(v) for j, v in zip(judges, own_judgements, strict=True)},
                "reasoning_verdict": thought,
                "shown_within": _shown_within(run.lm, one.reply, shows, tokens),
                "repetition": round(repetition(run.lm.text_ids(one.reply)), 4),
            }
            for condition, one, thought, *own_judgements in zip(
                conditions, every, thoughts, *found, strict=True
            )
        ),
    )
    write_json(
        run.path("judge.json"),
        {
            "judge": judges[0].name,
            "coherence": None if check is None else check.record,
            "judges": {judge.name: dict(judge.record) for judge in judges},
        },
    )


def _thoughts(judge: Judge, every: Sequence[Completion]) -> list[str | None]:
    """The judge's verdict on what each model thought aloud, None where it did not."""
    rows = [i for i, one in enumerate(every) if one.reasoning]
    verdicts: list[str | None] = [None] * len(every)
    judged = judge.judge([every[i].prompt for i in rows], [every[i].reasoning for i in rows])
    for i, judgement in zip(rows, judged, strict=True):
        verdicts[i] = judgement.verdict.value
    return verdicts


def _shown_within(
    lm: LanguageModel, reply: str, shows: Callable[[str], bool], tokens: Sequence[int]
) -> int | None:
    """The least of the token counts after which the reply shows the behaviour; None for none."""
    if not shows(reply):
        return None
    ids = lm.text_ids(reply)
    for count in tokens:
        if len(ids) <= count or shows(str(lm.tokenizer.decode(ids[:count]))):
            return count
    return len(ids)


def _plain(judgement: Judgement) -> Mapping[str, Any]:
    values = {"score": judgement.score, "reason": judgement.reason}
    given = {name: value for name, value in values.items() if value is not None}
    return {"verdict": judgement.verdict.value, **given}
