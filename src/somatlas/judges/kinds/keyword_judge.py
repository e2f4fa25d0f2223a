"""`keyword`: refused where the matcher says so, or the expressions of --behaviour."""

from __future__ import annotations

from somatlas.judges.keyword import KeywordJudge, matcher
from somatlas.judges.kind import Asked, JudgeKind, JudgeSettings, shared


class KeywordSettings(JudgeSettings):
    """What the matcher looks for."""

    behaviour: str | None = shared(
        "behaviour", None, "a file of regular expressions in place of the refusal matcher"
    )


def _make(asked: Asked[KeywordSettings]) -> KeywordJudge:
    return KeywordJudge(matcher(asked.settings.behaviour))


def _check(asked: Asked[KeywordSettings]) -> None:
    matcher(asked.settings.behaviour)


KIND = JudgeKind(
    "keyword", "refusal matcher, or the expressions of a file", KeywordSettings, _make, check=_check
)
