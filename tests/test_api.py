"""The public API: what it gives is what the command gives, and the script of the docs runs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

import somatlas as sa
from command import SMALL, Command
from somatlas.models.language_model import LanguageModel
from somatlas.prompts import bundled_prompts
from somatlas.prompts.prompt_set import PromptSet, PromptSplit
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
    weaker = {"md": sa.Projection(torch.randn(2, 32), strength=0.5)}
    half = sa.evaluate(tiny, weaker, prompts.test, [judge], tokens=1)
    with pytest.raises(sa.InputError, match=r"'md' ablates with strength 0\.5"):
        sa.atlas(tiny, dirs, reps, half)
    page = sa.atlas(tiny, dirs, reps, result).save(tmp_path / "page.html")
    text = page.read_text()
    assert "How tiny encodes refusal" in text
    assert "random" in text


def test_representations_are_read_with_the_prompts_that_they_are_of_or_not_at_all(
    whole: Path,
) -> None:
    stages = json.loads((whole / "stages.json").read_text())
    stages["represent"]["settings"]["prompts_sha256"] = "0" * 64
    (whole / "stages.json").write_text(json.dumps(stages))
    with pytest.raises(sa.InputError, match=r"the prompts of .* have changed since"):
        _ = sa.open_run(whole).representations


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


@pytest.fixture(scope="module")
def parts(tiny: LanguageModel, prompts: PromptSet) -> tuple[sa.Representations, sa.DirectionSet]:
    """Representations of two layers, and directions of the second of them."""
    reps = sa.represent(tiny, prompts.train, layers=[3, 1])
    sides = reps.harmful[:, reps.place(1)], reps.harmless[:, reps.place(1)]
    return reps, sa.KMeansDirections(count=3).fit(*sides).directions_


class _Judge:
    """A judge that says what it is made with, whatever it is asked."""

    record: ClassVar[dict[str, Any]] = {}

    def __init__(self, says: Any, name: str = "mine") -> None:
        self.says, self.name = says, name

    def judge(self, prompts: Sequence[str], replies: Sequence[str]) -> Any:
        return self.says(replies)


_ONE = _Judge(lambda replies: [sa.Judgement(sa.Verdict.REFUSED)])
_TEXTS = _Judge(lambda replies: ["refused"] * len(replies))
_KEYWORD = sa.KeywordJudge()
_SEARCH = {"k": 2, "trials": 2, "prompts": 3, "tokens": 4}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"trials": 0}, "trials must be a whole number of at least 1, not 0"),
        ({"k": 1.5}, "k must be a whole number"),
        ({"prompts": 0}, "prompts must be a whole number"),
        ({"lanes": 0}, "lanes must be a whole number"),  # looped for ever
        ({"tokens": -1}, "tokens must be a whole number"),
        ({"startup": 0}, "startup must be a whole number"),
        ({"seed": None}, "seed must be a whole number"),
        ({"objective": "kl"}, "objective must be asr or asr,kl, not 'kl'"),
        ({"max_kl": 0.0}, "max_kl must be a number above 0"),  # was never measured
        ({"max_kl": float("nan")}, "max_kl must be a number above 0"),
        ({"storage": Path("s.db")}, "storage must be a database URL"),
        ({"judge": "keyword"}, "'keyword' is no judge"),
        ({"judge": sa.KeywordJudge}, "not the class KeywordJudge"),
        ({"judge": _ONE}, "gave 1 judgements of 3 replies"),  # counted as if they were all
        ({"judge": _TEXTS}, "must give Judgement"),
        ({"directions": np.eye(32)}, "directions must be a DirectionSet"),
        ({"lm": "tiny"}, "lm must be a model that load_model made"),
        ({"val": PromptSplit((), ())}, "the split has no harmful prompts"),
    ],
)
def test_a_search_refuses_what_it_cannot_do(
    tiny: LanguageModel,
    prompts: PromptSet,
    parts: tuple[sa.Representations, sa.DirectionSet],
    given: dict[str, Any],
    said: str,
) -> None:
    plain = {"lm": tiny, "directions": parts[1], "val": prompts.val, "judge": _KEYWORD, **_SEARCH}
    with pytest.raises(sa.InputError, match=re.escape(said)):
        sa.search(**(plain | given))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"conditions": [np.eye(32)]}, "conditions must be edits by name"),
        ({"conditions": {3: np.eye(32)}}, "condition 3 must be a plain name"),
        ({"conditions": {"a\nb": np.eye(32)}}, "must be a plain name"),
        ({"conditions": {"a": "sd"}}, "the directions of condition 'a' must be an array"),
        ({"conditions": {"a": sa.SingleDirection()}}, "must be an array of real numbers"),
        ({"judges": _KEYWORD}, "give [judge]"),
        ({"judges": [_KEYWORD, sa.KeywordJudge(bool)]}, "two judges are called 'keyword'"),
        ({"judges": [_ONE]}, "gave 1 judgements of"),
        ({"tokens": 0}, "tokens must be a whole number"),
        ({"batch_size": 0}, "batch_size must be a whole number"),
        ({"samples": 0}, "samples must be a whole number"),
        ({"temperature": float("nan")}, "temperature must be a number at least 0"),  # was greedy
        ({"top_p": 0, "temperature": 1.0}, "top_p must be a number above 0"),
        ({"seed": -1}, "seed must be a whole number"),
        ({"prompts": PromptSplit(["a"], ["b"])}, "give Prompt(text)"),
        ({"prompts": PromptSplit([sa.Prompt("a")], ())}, "the split has no harmless prompts"),
    ],
)
def test_a_test_refuses_what_it_cannot_do(
    tiny: LanguageModel, prompts: PromptSet, given: dict[str, Any], said: str
) -> None:
    plain = {"lm": tiny, "conditions": {}, "prompts": prompts.test, "judges": [_KEYWORD]}
    with pytest.raises(sa.InputError, match=re.escape(said)):
        sa.evaluate(**(plain | {"tokens": 4} | given))


def test_edits_are_given_in_any_form(
    tiny: LanguageModel, prompts: PromptSet, parts: tuple[sa.Representations, sa.DirectionSet]
) -> None:
    two = parts[1][:2]
    forms = {"set": two, "tensor": two.vectors, "array": two.vectors.numpy()}
    forms |= {"list": two.vectors.tolist(), "map": sa.Projection(two.vectors)}
    result = sa.evaluate(tiny, forms, prompts.test, [_KEYWORD], tokens=4)
    assert len({tuple(c.reply for c in result.completions[name]) for name in forms}) == 1
    assert len({result.evaluation.test[name]["kl"] for name in forms}) == 1


@pytest.mark.parametrize("layers", [[], [9], [1, 1], 3, ["a"], [1.0]])
def test_layers_that_are_none_are_refused(
    tiny: LanguageModel, prompts: PromptSet, layers: Any
) -> None:
    with pytest.raises(sa.InputError, match="layer"):
        sa.represent(tiny, prompts.train, layers=layers)


def test_what_is_no_split_is_refused(tiny: LanguageModel, prompts: PromptSet) -> None:
    for wrong in (prompts, ["a"], PromptSplit((), ())):
        with pytest.raises(sa.InputError, match="split"):
            sa.represent(tiny, wrong)
    for text in ("a text", None, range(20), [*map(str, range(20)), " "]):
        with pytest.raises(sa.InputError, match="prompt"):
            sa.PromptSet.of(text, map(str, range(20, 40)))
    with pytest.raises(sa.InputError, match="split must be"):
        prompts.limited({"dev": 3})


def test_layers_chosen_by_hand_keep_their_places(
    parts: tuple[sa.Representations, sa.DirectionSet], tiny: LanguageModel, prompts: PromptSet
) -> None:
    reps, _ = parts
    how = {"prompts": 4, "refusal_tokens": np.array([10, 20])}
    assert sa.choose_layer(tiny, reps, prompts.val, **how).layer == 1
    with pytest.raises(sa.InputError, match="layer 0 was not kept: the representations have"):
        reps.place(0)
    for tokens in ([], 10, ["I"], [10, 10]):
        with pytest.raises(sa.InputError, match=r"refusal.tokens must be"):
            sa.choose_layer(tiny, reps, prompts.val, refusal_tokens=tokens)


def test_the_page_of_a_method_without_a_map_and_without_sd(
    tiny: LanguageModel,
    prompts: PromptSet,
    parts: tuple[sa.Representations, sa.DirectionSet],
    tmp_path: Path,
) -> None:
    reps, dirs = parts
    result = sa.evaluate(tiny, {"mine": dirs[:2]}, prompts.test, [_KEYWORD], tokens=4)
    report = sa.atlas(tiny, dirs, reps, result, condition="mine", candidates=2)
    assert report.record.layer == 1
    assert "How tiny encodes refusal" in report.save(tmp_path / "page.html").read_text()


def test_a_study_is_of_one_model(
    tiny: LanguageModel,
    prompts: PromptSet,
    parts: tuple[sa.Representations, sa.DirectionSet],
    tmp_path: Path,
) -> None:
    how = {**_SEARCH, "storage": f"sqlite:///{tmp_path / 's.db'}"}
    sa.search(tiny, parts[1], prompts.val, _KEYWORD, **how)
    with pytest.raises(sa.InputError, match=r"made with system = None, not 'Be kind\.'"):
        sa.search(replace(tiny, system="Be kind."), parts[1], prompts.val, _KEYWORD, **how)


def test_a_model_is_named_by_a_path_too(tiny_folder: Path) -> None:
    assert sa.load_model(tiny_folder).name == "tiny"
    for wrong in ({"site": "x"}, {"date": "yesterday"}, {"system": 3}):
        with pytest.raises(sa.InputError, match="must be"):
            sa.load_model(tiny_folder, **wrong)


def test_arrays_of_other_kinds_are_refused(tmp_path: Path) -> None:
    rows = np.eye(4)
    for wrong in ("abc", None, [[1, 2], [3]], rows + 1j, sa.DirectionSet.of_vectors(rows)):
        with pytest.raises(sa.InputError, match="array of real numbers"):
            sa.Projection(wrong)
        with pytest.raises(sa.InputError, match="array of real numbers"):
            sa.SOM(grid=(1, 1)).fit(wrong)
    for wrong in (rows[0], rows[None], rows[:0], rows * np.nan):
        with pytest.raises(sa.InputError, match="direction"):
            sa.DirectionSet.of_vectors(wrong)
    with pytest.raises(sa.InputError, match="floating-point"):
        sa.Projection(rows[:1]).apply(np.ones((2, 4), dtype=int))  # was cut to whole numbers
    masked, meta = np.ma.masked_less(rows, 0.5), torch.eye(4, device="meta")
    for wrong in (masked, torch.eye(4).to_sparse(), meta):
        with pytest.raises(sa.InputError, match=r"array of real numbers|all there"):
            sa.Projection(wrong)
    with pytest.raises(sa.InputError, match="float32 cannot hold"):
        sa.DirectionSet.of_vectors(rows * 1e200)
    upside_down = rows[::-1]  # of negative strides, which torch does not take
    torch.testing.assert_close(sa.Projection(upside_down).A, sa.Projection(upside_down.copy()).A)
    som = sa.SOM(grid=(1, 1)).fit(upside_down)
    for wrong in (rows[0] + np.inf, None, "abcd", rows[0] + 1j):
        with pytest.raises(sa.InputError, match="the harmless mean"):
            sa.DirectionSet.from_som(som, wrong)
    assert sa.Projection([torch.ones(4), torch.arange(4.0)]).apply([[1.0, 0, 0, 0]]).shape == (1, 4)
    for wrong in ({"grid": 4}, {"grid": (2.5, 2)}, {"iterations": 1.5}, {"seed": -1}):
        with pytest.raises(sa.InputError, match="must be"):
            sa.SOM(**wrong).fit(rows)
    directions = sa.DirectionSet.of_vectors(rows)
    directions.save(str(tmp_path / "d.safetensors"))
    assert sa.DirectionSet.load(str(tmp_path / "d.safetensors")) == directions
    assert directions != directions[:2]


def test_a_reply_to_one_of_few_strangers_is_judged(tiny: LanguageModel, prompts: PromptSet) -> None:
    few = prompts.val.harmful[:1]
    judge = sa.Coherent.calibrated(_KEYWORD, tiny, prompts.val.harmless, strangers=few, tokens=4)
    assert len(judge.judge([few[0].text, "Hello"], ["Some words.", "Other words."])) == 2
    with pytest.raises(sa.InputError, match="give one reply each"):
        judge.judge(["a"], ["b", "c"])
