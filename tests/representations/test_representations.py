"""Representations against the model's own hidden states, one prompt at a time."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from command import Command
from somatlas import InputError
from somatlas.models.generation import first_reply_tokens
from somatlas.models.language_model import LanguageModel
from somatlas.prompts import bundled_prompts
from somatlas.prompts.prompt_set import texts
from somatlas.representations.extract import residual_stream
from somatlas.representations.store import RepresentationStore

PROMPTS = [
    "Hi",
    "A much longer prompt that goes on for a while, so that batches need padding",
    "Where is the station?",
    "",
    "日本語のテキスト",
]


def reference(lm: LanguageModel, prompts: Sequence[str]) -> torch.Tensor:
    """(n, L, d) from output_hidden_states, unbatched; the last entry there is after the norm."""
    captured: list[torch.Tensor] = []
    last = lm.structure.blocks[-1].register_forward_hook(
        lambda _m, _a, out: captured.append(out[0] if isinstance(out, tuple) else out)
    )
    rows = []
    with torch.no_grad():
        for prompt in prompts:
            ids = torch.tensor([lm.token_ids(prompt)])
            states = lm.model(input_ids=ids, output_hidden_states=True).hidden_states
            rows.append(torch.stack([*(s[0, -1] for s in states[1:-1]), captured[-1][0, -1]]))
    last.remove()
    return torch.stack(rows)


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return float((actual - expected).norm(dim=-1).max() / expected.norm(dim=-1).min())


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_batches_equal_single_prompts(tiny: LanguageModel, batch_size: int) -> None:
    actual = residual_stream(tiny, PROMPTS, range(tiny.n_layers), batch_size=batch_size)
    assert actual.shape == (5, 4, 32)
    torch.testing.assert_close(actual, reference(tiny, PROMPTS), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("position", [-4, -2, 1, 3])
def test_any_token_of_the_prompt_can_be_read(tiny: LanguageModel, position: int) -> None:
    """The paper's --token_pos, an index into transformers' own hidden states."""
    actual = residual_stream(tiny, PROMPTS[:3], range(3), batch_size=2, position=position)
    with torch.no_grad():
        for vectors, prompt in zip(actual, PROMPTS, strict=False):
            ids = torch.tensor([tiny.token_ids(prompt)])
            states = tiny.model(input_ids=ids, output_hidden_states=True).hidden_states
            expected = torch.stack([state[0, position] for state in states[1:-1]])
            torch.testing.assert_close(vectors, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("token", [1, 3])
def test_a_token_of_the_models_own_reply_can_be_read(tiny: LanguageModel, token: int) -> None:
    """The paper's --generate: transformers' hidden states at that step of its own generation."""
    replies = first_reply_tokens(tiny, PROMPTS, token, batch_size=2)
    actual = residual_stream(tiny, PROMPTS, range(3), batch_size=2, suffixes=replies)
    for vectors, reply, prompt in zip(actual, replies, PROMPTS, strict=True):
        output = tiny.model.generate(
            torch.tensor([tiny.token_ids(prompt)]),
            max_new_tokens=token + 1,
            do_sample=False,
            eos_token_id=None,
            output_hidden_states=True,
            return_dict_in_generate=True,
        )
        assert reply == output.sequences[0, -token - 1 : -1].tolist()
        expected = torch.stack([state[0, -1] for state in output.hidden_states[token][1:-1]])
        torch.testing.assert_close(vectors, expected, rtol=1e-4, atol=1e-4)


def test_the_run_reads_the_token_it_was_told(
    command: Command, tiny_folder: Path, tiny: LanguageModel, tmp_path: Path
) -> None:
    place = (tiny_folder, "--train-prompts", "16", "--out", tmp_path)
    prompts = bundled_prompts().limited({"train": 16}).positive["train"]
    for name, flags, token in (
        ("position", ("--token-position", "-2"), "prompt -2"),
        ("reply", ("--reply-token", "2"), "reply 2"),
    ):
        result = command("represent", *place, "--name", name, *flags)
        assert result.code == 0, result.err
        folder = tmp_path / "tiny" / name / "representations"
        assert json.loads((folder / "index.json").read_text())["token"] == token
        suffixes = first_reply_tokens(tiny, texts(prompts), 2, 8) if name == "reply" else None
        expected = residual_stream(
            tiny,
            texts(prompts),
            [1],
            batch_size=8,
            position=-1 if suffixes else -2,
            suffixes=suffixes,
        )
        stored = RepresentationStore.open(folder).at("positive", 1)
        torch.testing.assert_close(stored, expected[:, 0], rtol=1e-4, atol=1e-4)


def test_a_reply_that_ends_early_is_read_at_its_last_token_and_said(
    command: Command, tiny_folder: Path, tmp_path: Path
) -> None:
    """Whatever comes first ends the reply here: every reply is empty."""
    model = tmp_path / "tiny"
    shutil.copytree(tiny_folder, model)
    settings = json.loads((model / "generation_config.json").read_text())
    every = json.dumps(settings | {"eos_token_id": list(range(261))})
    (model / "generation_config.json").write_text(every)
    place = (model, "--train-prompts", "16", "--out", tmp_path / "runs")
    result = command("represent", *place, "--reply-token", "2")
    assert "32 replies end before their token 2" in result.err
    assert command("represent", *place, "--name", "last").code == 0
    vectors = [
        RepresentationStore.open(tmp_path / "runs" / "tiny" / name / "representations")
        for name in ("default", "last")
    ]
    torch.testing.assert_close(*(store.at("negative", 2) for store in vectors))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--token-position", "0"), "all prompts are the same up to token 0"),
        (("--token-position", "-999"), "none at position -999"),
        (("--token-position", "-2", "--reply-token", "1"), "give one of them"),
    ],
)
def test_a_token_that_cannot_be_read_is_refused(
    command: Command, tiny_folder: Path, tmp_path: Path, flags: tuple[str, ...], message: str
) -> None:
    place = (tiny_folder, "--train-prompts", "16", "--out", tmp_path)
    assert message in command.fails("represent", *place, *flags)


def test_layers_come_in_the_order_asked(tiny: LanguageModel) -> None:
    every = residual_stream(tiny, PROMPTS, range(4), batch_size=2)
    some = residual_stream(tiny, PROMPTS, [2, 0], batch_size=2)
    torch.testing.assert_close(some, every[:, [2, 0]])


def test_nothing_above_the_highest_layer_is_computed(tiny: LanguageModel) -> None:
    calls: list[int] = []
    handles = [
        block.register_forward_hook(lambda *_, i=i: calls.append(i))
        for i, block in enumerate(tiny.structure.blocks)
    ]
    residual_stream(tiny, ["Hi"], [1], batch_size=1)
    for handle in handles:
        handle.remove()
    assert calls == [0, 1] or calls == [0]  # the deepest block's own hooks may be cut short
    assert residual_stream(tiny, ["Hi"], [3], batch_size=1).isfinite().all()


def test_the_template_writes_the_only_bos(tiny: LanguageModel) -> None:
    ids = tiny.token_ids("Hi")
    assert ids.count(tiny.tokenizer.bos_token_id) == 1
    assert ids[0] == tiny.tokenizer.bos_token_id
    assert tiny.tokenizer("Hi")["input_ids"][0] == ids[0]  # the tokenizer alone would add one


def test_a_system_prompt_stands_before_the_prompt(tiny: LanguageModel) -> None:
    with_system = LanguageModel(tiny.model, tiny.tokenizer, tiny.structure, "x", system="Be kind.")
    assert tiny.tokenizer.decode(with_system.token_ids("Hi")) == "<bos>Be kind.<user>Hi<reply>"


@pytest.mark.parametrize("layer", [-1, 4])
def test_a_layer_out_of_range_is_refused(tiny: LanguageModel, layer: int) -> None:
    with pytest.raises(InputError, match=f"layer {layer} is out of range: tiny has layers 0 to 3"):
        residual_stream(tiny, PROMPTS, [layer], batch_size=2)


def test_nan_is_refused_with_its_layer(tiny: LanguageModel) -> None:
    def poison(_m: object, _a: object, out: object) -> object:
        return out * float("nan") if isinstance(out, torch.Tensor) else (out[0] * float("nan"),)  # type: ignore[index]

    handle = tiny.structure.blocks[2].register_forward_hook(poison)
    try:
        with pytest.raises(InputError, match="at layer 2 hold NaN"):
            residual_stream(tiny, PROMPTS, range(4), batch_size=2)
    finally:
        handle.remove()


@pytest.mark.slow
def test_the_default_models_batches_equal_single_prompts(default_model: LanguageModel) -> None:
    actual = residual_stream(default_model, PROMPTS, range(default_model.n_layers), batch_size=5)
    expected = reference(default_model, PROMPTS)
    assert relative_error(actual, expected) < 1e-4
