"""Judges: what a reply does with its request. No torch is imported until a model is needed."""

from somatlas.judges.coherence import CoherenceCheck, Thresholds
from somatlas.judges.coherent import Coherent
from somatlas.judges.keyword import (
    KeywordJudge,
    behaviour_matcher,
    is_refusal,
    is_settled_refusal,
    matcher,
)
from somatlas.judges.kind import Asked, JudgeKind, JudgeSettings, shared
from somatlas.judges.verdict import Judge, Judgement, Verdict, settled_by

__all__ = [
    "Asked",
    "CoherenceCheck",
    "Coherent",
    "Judge",
    "JudgeKind",
    "JudgeSettings",
    "Judgement",
    "KeywordJudge",
    "Thresholds",
    "Verdict",
    "behaviour_matcher",
    "is_refusal",
    "is_settled_refusal",
    "matcher",
    "settled_by",
    "shared",
]
