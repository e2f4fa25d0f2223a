"""Judges: what a reply does with its request."""

from somatlas.judges.coherence import CoherenceCheck
from somatlas.judges.keyword import behaviour_matcher, is_refusal, is_settled_refusal, matcher
from somatlas.judges.verdict import Judge, Judgement, KeywordJudge, Verdict

__all__ = [
    "CoherenceCheck",
    "Judge",
    "Judgement",
    "KeywordJudge",
    "Verdict",
    "behaviour_matcher",
    "is_refusal",
    "is_settled_refusal",
    "matcher",
]
