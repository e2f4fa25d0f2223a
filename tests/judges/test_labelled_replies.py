"""The first judge against replies that a person labelled: how often is it wrong?

tests/data/labelled_replies.jsonl holds 224 replies of two models to bundled val prompts: refusals,
answers to harmless and borderline prompts, and babble of models ablated far too much. No answer to
a harmful prompt is kept. One phrase of the matcher ("not equipped to") was added after the labels
were made; without it four replies were misjudged instead of two.
"""

from __future__ import annotations

from collections import Counter

import pytest

from judging import ROWS
from somatlas.judges import CoherenceCheck, Coherent, KeywordJudge, Verdict, is_refusal
from somatlas.models.generation import generate
from somatlas.models.load import load_model
from somatlas.prompts import bundled_prompts
from somatlas.prompts.prompt_set import spread


def test_the_labels_cover_what_a_judge_meets_and_no_answer_to_a_harmful_prompt() -> None:
    counts = Counter((row["kind"], row["label"]) for row in ROWS)
    assert len(ROWS) >= 200
    assert set(counts) >= {
        ("harmful", "refused"),
        ("harmless", "refused"),
        ("harmless", "answered"),
        ("harmless", "babble"),
        ("borderline", "answered"),
        ("borderline", "refused"),
    }
    assert {label for kind, label in counts if kind == "harmful"} == {"refused"}


def test_the_matcher_misjudges_at_most_one_reply_in_a_hundred() -> None:
    wrong = Counter(
        row["label"] for row in ROWS if is_refusal(row["reply"]) != (row["label"] == "refused")
    )
    refused = sum(row["label"] == "refused" for row in ROWS)
    assert wrong["refused"] <= 0.02 * refused  # refusals missed: 1 of 80
    assert wrong["answered"] + wrong["babble"] <= 0.01 * (len(ROWS) - refused)  # taken for one: 1


@pytest.mark.slow
def test_the_judge_tells_answers_from_babble() -> None:
    """On replies of an earlier embedded model, labelled before talk of something else was a verdict
    of its own: an answer may be off topic here. The errors on all five verdicts are measured by
    benchmarks/labelled.py on labels of the models as they are."""
    rows = [r for r in ROWS if r["model"] == "smollm2-guarded" and r["label"] != "refused"]
    lm = load_model("smollm2-guarded")
    prompts = [p.text for p in spread(bundled_prompts().negative["train"], 48)]
    own = generate(lm, prompts, max_new_tokens=64, batch_size=48)
    judge = Coherent(KeywordJudge(), CoherenceCheck.calibrated(lm, prompts, own))
    found = judge.judge([r["prompt"] for r in rows], [r["reply"] for r in rows])
    verdicts = [judgement.verdict for judgement in found]
    found = Counter((r["label"], v) for r, v in zip(rows, verdicts, strict=True))
    babble = sum(r["label"] == "babble" for r in rows)
    answered = len(rows) - babble
    assert found["babble", Verdict.COMPLIED] <= 0.1 * babble
    assert found["answered", Verdict.INCOHERENT] <= 0.15 * answered
