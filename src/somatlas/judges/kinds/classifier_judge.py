"""`classifier:MODEL`: a sequence-classification model on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from somatlas.errors import Problems
from somatlas.judges.kind import Asked, JudgeKind, JudgeSettings, shared
from somatlas.judges.template import template_from_file
from somatlas.judges.verdict import Judge

Meaning = Literal["complied", "refused", "incoherent", "off topic"]


class ClassifierSettings(JudgeSettings):
    """What the model reads, what its labels mean, and where it runs."""

    template: Path | None = shared(
        "judge_template", None, "a file with {prompt} and {reply} (default: it reads the reply)"
    )
    labels: dict[str, Meaning] | None = shared(
        "judge_labels", None, "what its labels mean (default: read from their names)"
    )
    device: str = shared("device", "cpu", "where it runs")
    trust_remote_code: bool = shared("trust_remote_code", False, "run code that comes with it")


def _make(asked: Asked[ClassifierSettings]) -> Judge:
    from somatlas.judges.local import load_classifier

    told = asked.settings
    return load_classifier(
        asked.argument,
        labels=told.labels,
        template=None if told.template is None else template_from_file(told.template),
        device=told.device,
        trust_remote_code=told.trust_remote_code,
    )


def _check(asked: Asked[ClassifierSettings]) -> None:
    """Its template, and by its config.json whether it is there and its labels can be told."""
    from somatlas.judges.local import label_meanings, label_names, model_config

    told, problems = asked.settings, Problems()
    with problems.gathered():
        if told.template is not None:
            template_from_file(told.template)
    with problems.gathered():
        names = label_names(model_config(asked.argument, told.trust_remote_code))
        label_meanings(asked.argument, names, told.labels)
    problems.raise_found()


KIND = JudgeKind(
    "classifier",
    "sequence-classification model",
    ClassifierSettings,
    _make,
    argument="MODEL",
    check=_check,
)
