"""Recipes: the paper's models, and the logic that they steer, on tiny models."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
import tomli_w

from architectures import build
from command import SMALL, Command
from conftest import tiny_tokenizer
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


@pytest.mark.parametrize(
    ("name", "architecture"),
    [
        ("llama2-7b", "Llama"),
        ("qwen2.5-3b", "Qwen2"),
        ("gemma2-9b", "Gemma2"),
        ("mistral-7b-rr", "Mistral"),
    ],
)
def test_a_recipe_runs_on_a_tiny_model_of_its_architecture(
    command: Command, tmp_path: Path, name: str, architecture: str
) -> None:
    """All of the recipe but its size; Qwen's first models bring their own code and are left out."""
    build(architecture).save_pretrained(tmp_path / "tiny")
    tiny_tokenizer().save_pretrained(tmp_path / "tiny")
    recipe = load_recipe(name)
    settings = {
        **recipe.settings,
        "model": str(tmp_path / "tiny"),
        "prompts": "bundled",
        "device": "cpu",
        "dtype": "float32",
        "layer": 1,
        "k": 2,
    }
    content = {**settings, "published": recipe.published}
    (tmp_path / "r.toml").write_text(tomli_w.dumps(content), encoding="utf-8")
    result = command("run", "--recipe", tmp_path / "r.toml", *SMALL, "--out", tmp_path / "runs")
    assert result.code == 0, result.err
    assert f"published: ASR {recipe.published['asr']} %" in result.out
    assert ("leak: a norm follows the writes" in result.out) == (architecture == "Gemma2")
    folder = tmp_path / "runs" / "tiny" / "default"
    evaluation = json.loads((folder / "evaluation.json").read_text())
    assert evaluation["published"]["ranks"] == recipe.published["ranks"]
    assert (evaluation["leak"]["md"] > 0) == (architecture == "Gemma2")
