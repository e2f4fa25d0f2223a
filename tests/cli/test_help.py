"""Help, version and completion: what they say, and that they bring no heavy library."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

from command import Command
from somatlas.cli.main import commands
from somatlas.cli.options import SUMMARIES
from somatlas.directions.methods import METHODS
from somatlas.runs.fields import FIELDS, STAGES, choices, form, is_switch
from somatlas.runs.settings import Config
from somatlas.searches.samplers import SAMPLERS

HEAVY = {"torch", "transformers", "optuna", "scipy", "numpy", "numba", "pydantic", "matplotlib"}
# Every help in one process that then says what it has imported.
HELPS = """
import contextlib, io, json, sys
from somatlas.cli.main import commands
shown = [["--version"], ["--help"], *([name, "--help"] for name in commands.commands)]
for arguments in shown:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        commands.main(arguments, standalone_mode=False)
    assert out.getvalue()
print(json.dumps([len(shown), sorted({name.partition(".")[0] for name in sys.modules})]))
"""


def test_help_of_every_command_imports_no_heavy_library() -> None:
    line = [sys.executable, "-c", HELPS]
    printed = subprocess.run(line, capture_output=True, text=True, check=True, timeout=60).stdout
    count, imported = json.loads(printed)
    assert count == 2 + len(commands.commands) >= 18
    assert "click" in imported
    assert not HEAVY & set(imported)


def test_settings_stand_below_their_stage(command: Command) -> None:
    text = command("run", "--help").out
    stages = [stage for stage in STAGES if any(f.stage == stage for f in FIELDS.values())]
    places = [text.index(f"\n{stage} ({SUMMARIES[stage][:4].lower()}") for stage in stages]
    places.append(text.index("\nHow it is carried out:"))
    assert places == sorted(places)
    for name, field in FIELDS.items():
        if name != "model":
            at = re.search(rf"^  --{name.replace('_', '-')}\b(?!-)", text, re.MULTILINE)
            assert at is not None, name
            section = stages.index(field.stage) if field.stage else len(stages)
            assert sum(place < at.start() for place in places) == section + 1, name


def test_types_choices_and_defaults_are_shown(command: Command) -> None:
    text = " ".join(command("run", "--help").out.split())
    assert "--grid RxC" in text
    assert "[default: 4x4]" in text
    assert "--trials INTEGER" in text
    assert "--sigma FLOAT" in text
    assert "--mode [sequential|subspace]" in text
    assert "--seed INTEGER decides everything that is drawn [default: 0]" in text
    assert not re.search(r"--[\w-]+ VALUE\b", text)


def test_a_stage_shows_what_it_and_those_before_it_read(command: Command) -> None:
    text = command("map", "--help").out
    assert "--sigma" in text
    assert "--dtype" in text
    assert "--trials" not in text


@pytest.mark.parametrize("name", list(FIELDS))
def test_what_is_shown_is_what_is_validated(name: str) -> None:
    """Listed choices are taken, each of them; a switch is a bool; a default is valid."""
    schema = Config.model_json_schema()["properties"][name]
    kinds = {kind.get("type") for kind in (schema, *schema.get("anyOf", ()))}
    listed = [kind["enum"] for kind in (schema, *schema.get("anyOf", ())) if "enum" in kind]
    if FIELDS[name].names is None:
        assert list(choices(name)) == (listed[0] if listed else [])
    assert is_switch(name) == ("boolean" in kinds)
    if form(name) in ("INTEGER", "FLOAT"):
        assert {"INTEGER": "integer", "FLOAT": "number"}[form(name)] in kinds


def test_names_of_methods_and_samplers_are_the_registries() -> None:
    assert list(choices("method")) == METHODS.names()
    assert form("sampler") == f"[{'|'.join(SAMPLERS.built_in)}]"


def completed(line: str) -> list[str]:
    """What the shell would offer, as click's own script for bash asks for it."""
    words = line.split(" ")
    asked = {
        "_SOMATLAS_COMPLETE": "bash_complete",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
    }
    code = "import sys; sys.argv[0] = 'somatlas'; from somatlas.cli.main import main; main()"
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **asked},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return result.stdout.split()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("somatlas do", ["plain,doctor"]),
        ("somatlas run smollm2-g", ["plain,smollm2-guarded"]),
        ("somatlas run ./mod", ["file,./mod"]),
        ("somatlas map --method km", ["plain,kmeans"]),
        ("somatlas run --recipe llama", ["plain,llama2-7b", "plain,llama3-8b"]),
        ("somatlas run --behaviour x", ["file,x"]),
        ("somatlas compare runs/", ["dir,runs/"]),
    ],
)
def test_completion(line: str, offered: list[str]) -> None:
    assert completed(line) == offered
