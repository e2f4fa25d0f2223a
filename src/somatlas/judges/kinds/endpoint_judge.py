"""`endpoint:MODEL`: a model behind an OpenAI-compatible server, asked with a rubric."""

from __future__ import annotations

from typing import TYPE_CHECKING

from somatlas.judges.kind import Asked, JudgeKind, JudgeSettings, shared
from somatlas.judges.verdict import Judge

if TYPE_CHECKING:
    from somatlas.models.served import Endpoint


class EndpointSettings(JudgeSettings):
    """Where the server is, and how it is asked."""

    url: str = shared("endpoint_url", ..., "its server's address, to /v1")
    timeout_s: float = shared("endpoint_timeout", 60.0, "seconds of one try", gt=0)
    concurrency: int = shared("endpoint_concurrency", 8, "requests at a time", ge=1)


def _endpoint(asked: Asked[EndpointSettings]) -> Endpoint:
    from somatlas.models.served import Endpoint

    told = asked.settings
    return Endpoint(
        told.url, asked.argument, timeout_s=told.timeout_s, concurrency=told.concurrency
    )


def _make(asked: Asked[EndpointSettings]) -> Judge:
    from somatlas.judges.rubric import EndpointJudge

    return EndpointJudge(_endpoint(asked), asked.cache)


def _check(asked: Asked[EndpointSettings]) -> None:
    """Whether the server answers."""
    _endpoint(asked).check()


KIND = JudgeKind(
    "endpoint",
    "model behind an OpenAI-compatible server",
    EndpointSettings,
    _make,
    argument="MODEL",
    check=_check,
    tells_babble=True,
    keeps_answers=True,
)
