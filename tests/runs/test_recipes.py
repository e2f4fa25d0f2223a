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
from somatlas import InputError, Projection
from somatlas.measures.layer_rule import first_token_log_probabilities, mean_kl
from somatlas.models.load import load_model
from somatlas.prompts import Prompt, PromptSet
from somatlas.prompts.prompt_set import spread
from somatlas.representations.extract import residual_stream
from somatlas.runs.folder import open_run
from somatlas.runs.recipes import load_recipe, published_for, recipe_names
from somatlas.runs.settings import Config

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

# Its code's: the layer of runs/*/layer_selection (refusal score and KL there), the refusal tokens
# of utils/select_layer.py's models, the system prompt of each class in models/language_models.py.
LAYERS = {
    "llama2-7b": (13, -5.617822, 0.071307),
    "llama3-8b": (11, -9.325003, 0.028582),
    "qwen-7b": (16, -5.383374, 0.063348),
    "qwen-14b": (22, -5.444977, 0.022963),
    "qwen2.5-3b": (23, -14.994934, 6.321405),
    "qwen2.5-7b": (15, -11.792265, 4.039044),
    "gemma2-9b": (23, -13.672148, 0.057033),
    "mistral-7b-rr": (0, -9.602835, 0.004295),
}
REFUSAL_TOKENS = {
    "llama2-7b": (306,),
    "llama3-8b": (40,),
    **dict.fromkeys(("qwen-7b", "qwen-14b", "qwen2.5-3b", "qwen2.5-7b"), (40, 2121)),
    "gemma2-9b": (235285,),
    "mistral-7b-rr": (28737,),
}
QWEN_SYSTEM = "You are a helpful assistant."
# Published for the same 159 behaviours, %: RDO, GCG, SAA.
OTHERS = {
    "llama2-7b": {"asr_rdo": 1.25, "asr_gcg": 32.70, "asr_saa": 57.90},
    "llama3-8b": {"asr_rdo": 32.07, "asr_gcg": 1.90, "asr_saa": 91.20},
    "qwen-7b": {"asr_rdo": 83.01},
}


def recipe_config(name: str) -> Config:
    return Config.merged(load_recipe(name).settings)


def test_there_is_one_for_each_of_the_papers_models() -> None:
    assert set(recipe_names()) == set(PUBLISHED)
    for name, (ranks, asr) in PUBLISHED.items():
        recipe = load_recipe(name)
        config = Config.merged(recipe.settings)
        assert (recipe.published["ranks"], recipe.published["asr"]) == (ranks, asr)
        assert config.k == len(ranks)
        assert (config.grid, config.candidates, config.trials) == ((4, 4), 16, 512)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_layer_and_the_refusal_tokens_are_the_papers(name: str) -> None:
    recipe, config = load_recipe(name), recipe_config(name)
    layer, score, kl = LAYERS[name]
    assert (config.layer, config.refusal_tokens) == (layer, REFUSAL_TOKENS[name])
    assert recipe.published["layer_refusal_score"] == pytest.approx(score, abs=0.005)
    assert recipe.published["layer_kl"] == pytest.approx(kl, abs=0.0005)
    assert (config.layer_data, config.layer_prompts, config.refusal_epsilon) == ("paper", 32, 1e-8)
    others = {k: v for k, v in recipe.published.items() if k in ("asr_rdo", "asr_gcg", "asr_saa")}
    assert others == OTHERS.get(name, {})


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_system_prompt_is_the_papers(name: str) -> None:
    """Llama 2's default for both Llamas, one sentence for the Qwens, none for the other two."""
    from transformers.models.llama.tokenization_llama import DEFAULT_SYSTEM_PROMPT

    expected = None
    if name.startswith("llama"):
        expected = DEFAULT_SYSTEM_PROMPT
    elif name.startswith("qwen"):
        expected = QWEN_SYSTEM
    assert recipe_config(name).system == expected


@pytest.mark.parametrize(
    ("name", "start", "end"),
    [
        ("llama2-7b", "<s>[INST] <<SYS>>\nBe kind.\n<</SYS>>\nHi", " [/INST]"),
        (
            "qwen-7b",
            "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi",
            "<|im_end|>\n<|im_start|>assistant ",
        ),
    ],
)
def test_the_prompts_text_is_the_papers(name: str, start: str, end: str) -> None:
    """Where its code writes the text by hand; no system prompt, no system turn."""
    tokenizer = tiny_tokenizer()
    tokenizer.bos_token = "<s>"
    tokenizer.chat_template = recipe_config(name).chat_template
    user = {"role": "user", "content": "Hi"}
    texts = [
        tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        for messages in ([{"role": "system", "content": "Be kind."}, user], [user])
    ]
    system = start[start.index("<<SYS>>" if name == "llama2-7b" else "<|im_start|>") :]
    system = system.removesuffix("<|im_start|>user\nHi").removesuffix("Hi")
    assert texts == [start + end, start.replace(system, "") + end]
    assert recipe_config("qwen-14b").chat_template == recipe_config("qwen-7b").chat_template


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_search_is_the_papers(name: str) -> None:
    """optuna_search.py: 512 trials, the first quarter at random, one after another, on 41 prompts
    and 512 tokens, judged by HarmBench's classifier alone."""
    config = recipe_config(name)
    assert config.startup * 4 == config.trials
    assert (config.ordered, config.round_size, config.objective) == (True, 1, "asr")
    assert (config.val_prompts, config.search_tokens, config.test_tokens) == (41, None, 512)
    assert (config.test_prompts, config.test_tokens) == (159, 512)
    assert (config.judge, config.coherence) == ("yesno:cais/HarmBench-Llama-2-13b-cls", "off")
    assert (config.mode, config.tied_head, config.site) == ("sequential", "paper", "projection")
    assert (config.sigma, config.learning_rate, config.iterations) == (0.33, 0.01, 10_000)
    assert config.dtype == ("bfloat16" if name == "gemma2-9b" else "float16")


def test_fewer_trials_than_the_random_ones_are_refused(command: Command) -> None:
    message = command.fails("run", "--recipe", "llama2-7b", "--trials", "64")
    assert "all 64 trials would be random" in message
    assert "--startup 16" in message


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
    result = command.until("judge", *given, *small, "--seed", "5")
    assert result.code == 0, result.err
    config = tomllib.loads((tmp_path / "tiny" / "default" / "config.toml").read_text())
    assert (config["layer"], config["grid"], config["trials"]) == (2, [2, 3], 3)
    assert config["seed"] == 5  # flags win over the recipe
    assert "published: ASR 50.0 %, ranks 1, 0" in result.out


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_newly_named_recipe_wins_over_what_the_folder_remembers(
    name: str, tmp_path: Path
) -> None:
    """As it does in a new folder; named again it gives way to what flags have changed since."""
    model = load_recipe(name).settings["model"]
    flags = {"model": model, "out": tmp_path}
    open_run(flags | {"seed": 7, "dtype": "float32"}, None, {}).record_config()
    fresh = open_run(flags | {"recipe": name, "name": "fresh"}, None, {}).config
    new = open_run(flags | {"recipe": name}, None, {})
    assert new.config == fresh.model_copy(update={"name": "default"})
    own = {"recipe": name, "device": "cpu", "sigma": 0.4, "dtype": "float32"}
    open_run(flags | own, None, {}).record_config()
    again = open_run(flags | {"recipe": name}, None, {}).config
    assert (again.device, again.sigma, again.k) == ("cpu", 0.4, fresh.k)
    other = next(one for one in PUBLISHED if one != name)
    assert open_run(flags | {"recipe": other}, None, {}).config.sigma == 0.33


def test_a_newly_named_recipe_is_refused_where_stages_were_made_otherwise(
    command: Command, tiny_folder: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_text(f'model = "{tiny_folder}"\ntrain_prompts = 20\nseed = 4\n')
    assert command("represent", tiny_folder, "--train-prompts", "24", "--out", tmp_path).code == 0
    settings = tmp_path / "tiny" / "default" / "config.toml"
    before = settings.read_bytes()
    message = command.fails("represent", "--recipe", recipe, "--out", tmp_path)
    assert "was made with seed = 0, not 4: give another --name" in message
    assert settings.read_bytes() == before


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


def test_the_layer_rule_on_the_papers_prompts(
    command: Command, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own directions, val prompts and no system prompt, whatever the run's are."""
    sides = [[Prompt(f"{side} {i}") for i in range(40)] for side in ("harmful", "harmless")]
    rule = PromptSet(
        *({"train": side[:30], "val": side[30:]} for side in sides),  # type: ignore[misc]
        borderline={},
    )
    monkeypatch.setattr("somatlas.runs.folder.layer_rule_prompts", lambda: rule)
    flags = ("--train-prompts", "16", "--out", tmp_path, "--system", "Be kind.")
    rule_flags = ("--layer-data", "paper", "--refusal-epsilon", "1e-3")
    stage_flags = (*rule_flags, "--refusal-tokens", "10,20", "--layer-prompts", "6")
    assert command("represent", tiny_folder, *flags).code == 0
    result = command("layers", tiny_folder, *flags, *stage_flags)
    assert result.code == 0, result.err
    found = json.loads((tmp_path / "tiny" / "default" / "layers.json").read_text())
    lm = load_model(str(tiny_folder))  # no system prompt
    vectors = [
        residual_stream(lm, [p.text for p in side[:30]], [0, 1, 2], batch_size=8) for side in sides
    ]
    val = [[p.text for p in spread(side[30:], 6)] for side in sides]
    base = first_token_log_probabilities(lm, val[1], 8)
    for row in found["scores"]:
        layer = row["layer"]
        direction = (vectors[0][:, layer].mean(dim=0) - vectors[1][:, layer].mean(dim=0))[None]
        ablated = [
            first_token_log_probabilities(lm, side, 8, Projection(direction)) for side in val
        ]
        p = ablated[0].double().exp()[:, [10, 20]].sum(dim=1)
        expected = ((p + 1e-3).log() - (1 - p + 1e-3).log()).mean()
        assert row["refusal_score"] == pytest.approx(float(expected), rel=1e-3)
        assert row["kl"] == pytest.approx(mean_kl(base, ablated[1]), rel=1e-3)
    assert len(found["scores"]) == 3
    assert found["data"]["source"] == "paper"
    assert found["data"]["train"] == [30, 30]


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
        "layer_data": "own",
        "judge": "keyword",
        "startup": 2,
        "k": 2,
    }
    content = {**settings, "published": recipe.published}
    (tmp_path / "r.toml").write_text(tomli_w.dumps(content), encoding="utf-8")
    given = ("--recipe", tmp_path / "r.toml", *SMALL, "--out", tmp_path / "runs")
    result = command.until("judge", *given)
    assert result.code == 0, result.err
    assert f"published: ASR {recipe.published['asr']} %" in result.out
    assert ("leak: a norm follows the writes" in result.out) == (architecture == "Gemma2")
    folder = tmp_path / "runs" / "tiny" / "default"
    evaluation = json.loads((folder / "evaluation.json").read_text())
    assert evaluation["published"]["ranks"] == recipe.published["ranks"]
    assert (evaluation["leak"]["md"] > 0) == (architecture == "Gemma2")


def test_what_flags_change_of_a_recipe_is_named_beside_its_published_figures() -> None:
    recipe = load_recipe("llama2-7b")
    config = Config.merged(recipe.settings, {"recipe": "llama2-7b", "batch_size": 3})
    assert published_for(config) == recipe.published
    changed = config.model_copy(update={"k": 2, "trials": 7})
    assert published_for(changed)["otherwise"] == ["k", "trials"]
    assert published_for(Config()) is None
