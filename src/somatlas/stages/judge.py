"""A verdict on every reply."""

from __future__ import annotations

from somatlas.evaluation import CONDITIONS, read_completions
from somatlas.files import write_json, write_jsonl
from somatlas.judges import CoherenceCheck, KeywordJudge, matcher
from somatlas.progress import progress
from somatlas.run import Run


def judge_stage(run: Run) -> None:
    """Judge every condition's completions."""
    run.needs("ablate")
    completions = {c: read_completions(run.path(f"completions/{c}.jsonl")) for c in CONDITIONS}
    own = [c for c in completions["base"] if c.kind == "harmless"]
    check = CoherenceCheck.calibrated(run.lm, [c.prompt for c in own], [c.reply for c in own])
    judge = KeywordJudge(check, matcher(run.config.behaviour))
    rows = []
    with progress("judge", sum(map(len, completions.values()))) as advance:
        for condition, replies in completions.items():
            verdicts = judge.judge([c.prompt for c in replies], [c.reply for c in replies])
            advance(len(replies))
            rows += [
                {"condition": condition, "kind": c.kind, "category": c.category, "verdict": v}
                for c, v in zip(replies, verdicts, strict=True)
            ]
    write_jsonl(run.path("verdicts.jsonl"), rows)
    write_json(run.path("judge.json"), {"judge": "keyword", "coherence": check.thresholds})
