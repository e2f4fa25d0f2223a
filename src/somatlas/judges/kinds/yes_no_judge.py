"""`yesno:MODEL`: a causal model on this machine that answers with yes or no."""

from __future__ import annotations

from pathlib import Path

from somatlas.errors import Problems
from somatlas.judges.kind import Asked, JudgeKind, JudgeSettings, shared
from somatlas.judges.template import JudgeTemplate, template_from_card, template_from_file
from somatlas.judges.verdict import Judge


class YesNoSettings(JudgeSettings):
    """What the model reads, and where it runs."""

    template: Path | None = shared(
        "judge_template", None, "a file with {prompt} and {reply} (default: from its card)"
    )
    device: str = shared("device", "cpu", "where it runs")
    trust_remote_code: bool = shared("trust_remote_code", False, "run code that comes with it")


def _template(asked: Asked[YesNoSettings]) -> JudgeTemplate:
    file = asked.settings.template
    return template_from_card(asked.argument) if file is None else template_from_file(file)


def _make(asked: Asked[YesNoSettings]) -> Judge:
    from somatlas.judges.local import load_yes_no

    return load_yes_no(
        asked.argument,
        template=_template(asked),
        device=asked.settings.device,
        trust_remote_code=asked.settings.trust_remote_code,
    )


def _check(asked: Asked[YesNoSettings]) -> None:
    """Whether the model is there, and its template."""
    from somatlas.judges.local import model_config

    problems = Problems()
    with problems.gathered():
        model_config(asked.argument, asked.settings.trust_remote_code)
    if asked.settings.template is not None or not problems.found:  # else there is no card either
        with problems.gathered():
            _template(asked)
    problems.raise_found()


KIND = JudgeKind(
    "yesno",
    "causal model that answers yes or no",
    YesNoSettings,
    _make,
    argument="MODEL",
    check=_check,
)
