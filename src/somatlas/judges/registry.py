"""Judges by what a user calls them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from somatlas.errors import InputError
from somatlas.judges.coherence import CoherenceCheck, Coherent
from somatlas.judges.keyword import KeywordJudge, matcher
from somatlas.judges.local import load_classifier, load_yes_no
from somatlas.judges.rubric import EndpointJudge
from somatlas.judges.template import template_from_card, template_from_file
from somatlas.judges.verdict import Judge, Judgement, Verdict
from somatlas.models.served import Endpoint
from somatlas.runs.settings import Config


class Judges:
    """The judges of one configuration; each model is loaded once, on first use.

    cache : file that keeps what a server answered.
    """

    def __init__(self, config: Config, cache: Path | None) -> None:
        self.config, self.cache = config, cache
        self._loaded: dict[str, Judge] = {}

    def get(self, spec: str, coherence: CoherenceCheck | None) -> Judge:
        """The judge that spec names (`Config.judge`), behind the coherence check.

        A server's judge gives all verdicts itself, and is left without the check.
        Raises InputError where its model, template or server cannot be used.
        """
        if spec not in self._loaded:
            self._loaded[spec] = self._load(spec)
        judge = self._loaded[spec]
        return judge if isinstance(judge, EndpointJudge) else Coherent(judge, coherence)

    def _load(self, spec: str) -> Judge:
        c = self.config
        if spec == "keyword":
            return KeywordJudge(matcher(c.behaviour))
        kind, _, model = spec.partition(":")
        if kind == "endpoint":
            return EndpointJudge(endpoint(c, model), self.cache)
        template = None
        if c.judge_template is not None:
            template = template_from_file(Path(c.judge_template))
        if kind == "classifier":
            return load_classifier(
                model,
                labels=c.judge_labels,
                template=template,
                device=c.device,
                trust_remote_code=c.trust_remote_code,
            )
        return load_yes_no(
            model,
            template=template or template_from_card(model),
            device=c.device,
            trust_remote_code=c.trust_remote_code,
        )


def endpoint(config: Config, model: str) -> Endpoint:
    """A model on the configured server."""
    assert config.endpoint_url is not None  # the configuration is checked for it
    return Endpoint(
        config.endpoint_url,
        model,
        timeout_s=config.endpoint_timeout,
        concurrency=config.endpoint_concurrency,
    )


def check_missing(judge: Judge, judgements: Sequence[Judgement], limit: float) -> None:
    """Raise InputError where a judge left more than the allowed share without a verdict."""
    missing = sum(j.verdict is Verdict.MISSING for j in judgements)
    if missing > limit * len(judgements):
        failures = judge.record.get("failures") or {}
        how = ", ".join(f"{name} {count}" for name, count in failures.items())
        raise InputError(
            f"judge {judge.name} gave no verdict on {missing} of {len(judgements)} replies"
            f"{f' ({how})' if how else ''}: what it gave is kept, run it again, or allow it with "
            "--max-missing"
        )
