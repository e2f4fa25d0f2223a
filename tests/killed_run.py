"""A command in a process of its own, whose imports a fork server has done."""

from __future__ import annotations

import os
import sys

import matplotlib.pyplot  # noqa: F401
import transformers.models.llama.modeling_llama  # noqa: F401

import somatlas.runs.pipeline  # noqa: F401
from somatlas.cli.main import main as command


def main(arguments: list[str]) -> None:
    """Carry the command out in silence."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    sys.argv = ["somatlas", *arguments]
    command()
