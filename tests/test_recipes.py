"""Recipes: the paper's models, and the logic that they steer, on tiny models."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from command import SMALL, Command
from somatlas import InputError
from somatlas.config import Config
from somatlas.recipes import load_recipe, recipe_names

# arXiv 2511.08379: ranks ablated and ASR on the HarmBench test behaviours, %.
PUBLISHED = {
    "llama2-7b": ([8, 11, 4, 7, 13, 6, 12], 59.11),
    "llama3-8b": ([15, 3, 0, 12, 3, 11], 88.05),
    "qwen-7b": ([2, 7, 9, 10, 0], 88.05),
    "qwen-14b": ([0, 7, 3, 15, 11, 8], 91.82),
    "qwen2.5-3b": ([2, 7, 9, 14, 8], 93.71),
    "qwen2.5-7b": ([10, 3, 5, 2, 4, 6, 13], 95.97),
    "gemma2-9b": ([7, 6, 15, 2, 13, 3], 96.27),
    "mistral-7b-rr": ([9, 5, 6, 3, 1], 25.79),
}


def test_there_is_one_for_each_of_the_papers_models() -> None:
    assert set(recipe_names()) == set(PUBLISHED)
    for name, (ranks, asr) in PUBLISHED.items():
        recipe = load_recipe(name)
        config = Config.merged(recipe.settings)
        assert (recipe.published["ranks"], recipe.published["asr"]) == (ranks, asr)
        assert config.k == len(ranks)
        assert (config.grid, config.candidates, config.trials) == ((4, 4), 16, 512)
    assert Config.merged(load_recipe("llama2-7b").settings).layer == 13


def test_the_llama_system_prompt_is_transformers_own() -> None:
    from transformers.models.llama.tokenization_llama import DEFAULT_SYSTEM_PROMPT

    assert load_recipe("llama2-7b").settings["system"] == DEFAULT_SYSTEM_PROMPT


def test_a_recipe_is_the_whole_command(command: Command, tiny_folder: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_text(
        f'model = "{tiny_folder}"\nlayer = 2\ngrid = "2x3"\nk = 2\ntrials = 3\nseed = 4\n'
        "[published]\nranks = [1, 0]\nasr = 50.0\n"
    )
    given = ("--recipe", recipe, "--out", tmp_path)
    small = [*SMALL]
    for flag in ("--grid", "--trials", "--k"):
        place = small.index(flag)
        del small[place : place + 2]
    result = command("run", *given, *small, "--seed", "5")
    assert result.code == 0, result.err
    config = tomllib.loads((tmp_path / "tiny" / "default" / "config.toml").read_text())
    assert (config["layer"], config["grid"], config["trials"]) == (2, [2, 3], 3)
    assert config["seed"] == 5  # flags win over the recipe
    assert "published: ASR 50.0 %, ranks 1, 0" in result.out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("grid = '4x4'", "names no model"),
        ("model = 'm'\ngird = '4x4'", "no setting 'gird'"),
        ("model = ", "cannot be read"),
        ("model = 'm'\nsystem_from = 'nowhere:X'", "cannot be had"),
    ],
)
def test_bad_recipes(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        load_recipe(str(path))


def test_an_unknown_recipe_names_those_there_are(command: Command) -> None:
    assert "llama2-7b" in command.fails("run", "--recipe", "llama9")
    assert "does not exist" in command.fails("run", "--recipe", "nowhere.toml")
