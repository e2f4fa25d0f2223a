"""The command as a user runs it, and a run small enough for a test."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from somatlas.cli import run_commands
from somatlas.cli.main import main
from somatlas.report import rendering
from somatlas.runs.fields import STAGES, Stage

# Flags of a run that takes a second, by the stage they belong to.
SMALL_STAGES = {
    "represent": ("--train-prompts", "24"),
    "layers": ("--refusal-tokens", "10,20", "--layer-prompts", "4"),
    "map": ("--grid", "2x3", "--iterations", "300"),
    "search": (
        "--trials",
        "4",
        "--k",
        "2",
        "--val-prompts",
        "4",
        "--test-tokens",
        "6",
        "--lanes",
        "1",
    ),
    "ablate": ("--test-prompts", "6"),
    "judge": (),
    "cost": (),
    "atlas": (),
}
SMALL = tuple(flag for flags in SMALL_STAGES.values() for flag in flags)


def run_offline(*arguments: str | Path, figures: bool = False) -> None:
    """A command carried out for a fixture that outlives a test: no capture, no hub, and no figures
    but where they are asked for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("somatlas.models.checkpoint.hub_reachable", lambda: False)
        patch.setattr(sys, "argv", ["somatlas", *map(str, arguments)])
        if not figures:
            without_figures(patch)
        main()


def without_figures(patch: pytest.MonkeyPatch) -> None:
    """Pages have no figures: to draw them takes half of a tiny run."""
    patch.setattr(rendering, "saved", lambda figure, folder: {"caption": "", "svg": ""})


class Result(NamedTuple):
    code: int
    out: str
    err: str


class Command:
    """Calls the command in this process and catches what it prints."""

    def __init__(self, patch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]) -> None:
        self.patch, self.capture = patch, capture

    def __call__(self, *arguments: str | Path) -> Result:
        self.patch.setattr(sys, "argv", ["somatlas", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        out, err = self.capture.readouterr()
        return Result(code, out, err)

    def until(self, stage: Stage, *arguments: str | Path) -> Result:
        """`run`, to the end of a stage: the atlas alone takes half of a tiny run."""
        with self.patch.context() as patch:
            patch.setattr(run_commands, "STAGES", STAGES[: STAGES.index(stage) + 1])
            return self("run", *arguments)

    def fails(self, *arguments: str | Path) -> str:
        """The one sentence of a command that must end with exit code 2."""
        code, _, err = self(*arguments)
        assert code == 2, err
        lines = [line for line in err.splitlines() if line.startswith("somatlas: ")]
        assert len(lines) == 1, err
        assert err.splitlines()[-1] == lines[0]
        assert "Traceback" not in err
        return lines[0]


TIMED = {"config.toml", "stages.json", "study.db", "table.txt", "evaluation.json", "report.html"}


def contents(folder: Path, *, figures: bool = False) -> dict[str, Any]:
    """Everything that the seed decides: bytes of files, and evaluation.json without seconds.

    figures : those too, which are drawn where a test is marked so.
    """
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name not in TIMED)
    if not figures:
        files = [p for p in files if p.parent.name != "figures" and p.suffix != ".png"]
    result: dict[str, Any] = {str(p.relative_to(folder)): p.read_bytes() for p in files}
    evaluation = json.loads((folder / "evaluation.json").read_text())
    del evaluation["seconds"]
    return {**result, "evaluation": evaluation}


def assert_begins_as(begun: Path, whole: Path) -> None:
    """What there is of a run up to a stage from its judgements on is the same in a whole one."""
    found, expected = contents(begun), contents(whole)
    assert found == {name: expected[name] for name in found}
