"""The public API: what it gives is what the command gives, and the script of the docs runs."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import somatlas as sa
from command import SMALL, Command
from somatlas.models.language_model import LanguageModel
from somatlas.prompts import bundled_prompts
from somatlas.prompts.prompt_set import PromptSet
from test_examples import python_blocks


def test_importing_the_package_imports_no_library_of_arrays() -> None:
    code = "import somatlas, sys; print([m for m in ('torch', 'numpy') if m in sys.modules])"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("given", "spin"),
    [
        ({}, "1000 1"),
        ({"GOMP_SPINCOUNT": "7"}, "7 None"),
        ({"OMP_WAIT_POLICY": "active"}, "None None"),
    ],
)
def test_waiting_threads_spin_shortly_unless_the_user_says_otherwise(
    given: dict[str, str], spin: str
) -> None:
    names = ("GOMP_SPINCOUNT", "KMP_BLOCKTIME")
    own = {k: v for k, v in os.environ.items() if k not in (*names, "OMP_WAIT_POLICY")}
    code = f"import somatlas, os; print(*(os.environ.get(n) for n in {names}))"
    line = [sys.executable, "-c", code]
    said = subprocess.run(line, capture_output=True, text=True, check=True, env=own | given)
    assert said.stdout.strip() == spin


def test_every_public_name_is_there() -> None:
    for name in sa.__all__:
        assert getattr(sa, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = sa.nothing


@pytest.fixture(scope="module")
def prompts() -> PromptSet:
    """What `SMALL` takes of the bundled prompts."""
    return bundled_prompts().limited({"train": 24, "test": 6})


def test_python_gives_what_the_command_gives(
    whole: Path, tiny: LanguageModel, prompts: PromptSet, tmp_path: Path
) -> None:
    """Layer, directions, search, replies and verdicts of a run, made again from its parts."""
    run = sa.open_run(whole)
    reps = sa.represent(tiny, prompts.train)
    np.testing.assert_array_equal(reps.harmful[:, 2], run.representations.harmful[:, 2])
    np.testing.assert_array_equal(np.asarray(run.representations.harmless), reps.harmless)
    choice = sa.choose_layer(tiny, reps, prompts.val, prompts=4, refusal_tokens=[10, 20])
    assert choice == run.layers
    layer = choice.layer
    sides = reps.harmful[:, layer], reps.harmless[:, layer]
    dirs = sa.SOMDirections(grid=(2, 3), iterations=300, seed=0).fit(*sides).directions_
    assert torch.equal(dirs.neurons, run.directions.neurons)
    torch.testing.assert_close(dirs.vectors, run.directions.vectors)
    judge = sa.Coherent.calibrated(
        sa.KeywordJudge(), tiny, prompts.val.harmless, strangers=prompts.val.harmful, tokens=6
    )
    found = sa.search(
        tiny, run.directions, prompts.val, judge, k=2, trials=4, prompts=4, tokens=6, lanes=1
    )
    assert [t["ranks"] for t in found.trials] == [t["ranks"] for t in run.search.trials]
    conditions = {"sd": dirs.single, "md": found.projection, "random": torch.randn(2, 32)}
    result = sa.evaluate(tiny, conditions, prompts.test, [judge], tokens=6)
    for condition in ("base", "sd", "md"):
        replies = [one.reply for one in result.completions[condition]]
        if condition != "md" or found.ranks == run.search.ranks:
            assert replies == [one.reply for one in run.completions[condition]]
    assert result.table().split("\n")[1].split()[-5:] == ["base", "SD", "MD", "random", "n"]
    frame = result.to_frame()
    assert len(frame) == 4 * sum(map(len, (prompts.test.harmful, prompts.test.harmless))) + 4 * len(
        prompts.test.borderline
    )
    assert set(frame["condition"]) == {"base", "sd", "md", "random"}
    assert frame["prompt_id"].nunique() == len(set(frame["prompt"]))
    page = sa.atlas(tiny, dirs, reps, result).save(tmp_path / "page.html")
    text = page.read_text()
    assert "How tiny encodes refusal" in text
    assert "random" in text


def test_a_search_kept_in_a_database_goes_on_where_it_was(
    whole: Path, tiny: LanguageModel, prompts: PromptSet, tmp_path: Path
) -> None:
    directions = sa.open_run(whole).directions
    how = {"k": 2, "prompts": 4, "tokens": 6, "storage": f"sqlite:///{tmp_path / 's.db'}"}
    judge = sa.KeywordJudge()
    first = sa.search(tiny, directions, prompts.val, judge, trials=2, **how)
    more = sa.search(tiny, directions, prompts.val, judge, trials=5, **how)
    at_once = sa.search(tiny, directions, prompts.val, judge, trials=5, k=2, prompts=4, tokens=6)
    assert more.trials[:2] == first.trials
    assert more.trials == at_once.trials


def test_a_control_is_a_column_of_the_command_too(
    command: Command, tiny_folder: Path, whole: Path
) -> None:
    flags = (*SMALL, "--out", whole.parents[1], "--name", "controlled")
    result = command("run", tiny_folder, *flags, "--controls", "random,covariance")
    assert result.code == 0, result.err
    assert "random" in result.out
    run = sa.open_run(whole.parent / "controlled")
    assert list(run.conditions) == ["base", "sd", "md", "random", "covariance"]
    assert list(run.evaluation.test) == list(run.conditions)
    assert run.completions["md"] == sa.open_run(whole).completions["md"]
    message = command.fails("run", tiny_folder, *flags, "--controls", "sd")
    assert "a condition already" in message


def test_the_tutorial_runs(
    tiny: LanguageModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its own lines, on fewer prompts and a model that is told which tokens open a refusal."""
    few = bundled_prompts().limited({"train": 24, "val": 20, "test": 4})
    monkeypatch.setattr(sa, "load_prompts", lambda: few, raising=False)
    monkeypatch.setattr(sa, "load_model", lambda _: tiny, raising=False)
    told = partial(sa.choose_layer, refusal_tokens=[10, 20])
    monkeypatch.setattr(sa, "choose_layer", told, raising=False)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec("\n".join(python_blocks("tutorial-python.md")), names)
    assert (tmp_path / "report.html").exists()
    assert set(names["frame"]["condition"]) == {"base", "sd", "md", "random"}
