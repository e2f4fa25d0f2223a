"""Tiny random models, made from their config class, with a byte-level chat tokenizer."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from command import SMALL, Command, run_offline, without_figures
from somatlas.models.language_model import LanguageModel
from somatlas.models.load import load_model

settings.register_profile("untimed", deadline=None)  # how fast a machine is, is no property
settings.load_profile("untimed")

BOS, EOS, PAD, USER, REPLY = "<bos>", "<eos>", "<pad>", "<user>", "<reply>"
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}{% else %}"
    "<user>{{ m.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<reply>{% endif %}"
)


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Bytes are tokens. Left to itself it adds a BOS, as Llama's does: the template has one too."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    specials = [BOS, EOS, PAD, USER, REPLY]
    tokenizer = Tokenizer(models.BPE({t: i for i, t in enumerate(specials + alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(specials)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, 0)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        chat_template=CHAT_TEMPLATE,
    )


def tiny_llama(*, tied: bool = True, seed: int = 0) -> LlamaForCausalLM:
    """4 layers, d_model 32; weights large enough that every part matters."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=261,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=tied,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
        initializer_range=0.3,
        attention_bias=True,
    )
    return LlamaForCausalLM(config).eval()


def save_tiny(folder: Path, *, tied: bool = True, seed: int = 0) -> Path:
    """A tiny model's checkpoint folder."""
    tiny_llama(tied=tied, seed=seed).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def tiny(tiny_folder: Path) -> LanguageModel:
    return load_model(str(tiny_folder))


@pytest.fixture(scope="session")
def tiny_untied(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return load_model(str(save_tiny(tmp_path_factory.mktemp("models") / "untied", tied=False)))


@pytest.fixture(scope="session")
def default_model() -> LanguageModel:
    """The embedded default: slow tests only."""
    return load_model("smollm2-hardened")


@pytest.fixture(scope="session")
def finished_runs(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of runs that holds one finished run of the tiny model; tests take a copy."""
    runs = tmp_path_factory.mktemp("finished") / "runs"
    run_offline("run", tiny_folder, *SMALL, "--out", runs, figures=True)
    return runs


@pytest.fixture
def whole(finished_runs: Path, tmp_path: Path) -> Path:
    """The folder of a finished run of the tiny model, a test's own."""
    shutil.copytree(finished_runs, tmp_path / "runs")
    return tmp_path / "runs" / "tiny" / "default"


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    monkeypatch.setattr("somatlas.models.checkpoint.hub_reachable", lambda: False)
    return Command(monkeypatch, capsys)


@pytest.fixture(autouse=True)
def undrawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages have no figures but in tests of figures."""
    if request.node.get_closest_marker("figures") is None:
        without_figures(monkeypatch)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The slow ones first, so that no process is left alone with one at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
