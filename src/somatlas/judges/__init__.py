"""Judges: what a reply does with its request."""

from somatlas.judges.coherence import CoherenceCheck, Coherent, Thresholds
from somatlas.judges.keyword import (
    KeywordJudge,
    behaviour_matcher,
    is_refusal,
    is_settled_refusal,
    matcher,
)
from somatlas.judges.verdict import Judge, Judgement, Verdict

__all__ = [
    "CoherenceCheck",
    "Coherent",
    "Judge",
    "Judgement",
    "KeywordJudge",
    "Thresholds",
    "Verdict",
    "behaviour_matcher",
    "is_refusal",
    "is_settled_refusal",
    "matcher",
]
