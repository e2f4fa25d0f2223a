"""A command in a process of its own, whose imports a fork server has done."""

from __future__ import annotations

import os
import sys

import matplotlib.pyplot  # noqa: F401
import transformers.models.llama.modeling_llama  # noqa: F401

import somatlas.runs.pipeline  # noqa: F401
from somatlas.cli.main import main as command
from somatlas.runs import claim


def main(arguments: list[str]) -> None:
    """Carry the command out in silence."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    sys.argv = ["somatlas", *arguments]
    command()


def main_at_url(arguments: list[str], environment: dict[str, str]) -> None:
    """The same where an environment is needed; a writer that is gone is followed soon."""
    os.environ.update(environment)
    claim.BEAT_S, claim.SILENT_S = 0.1, 1.0
    main(arguments)
