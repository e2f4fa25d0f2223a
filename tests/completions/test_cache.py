"""Kept replies: their key holds all that decides them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from conftest import CHAT_TEMPLATE, save_tiny
from somatlas.completions.cache import model_key
from somatlas.models.digest import weights_digest
from somatlas.models.load import load_model

PROMPTS = ["Hi", "Where to?"]


def ends(folder: Path) -> None:
    path = folder / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "eos_token_id": [1, 80, 81]}))


def dated(folder: Path) -> None:
    text = CHAT_TEMPLATE.replace("<reply>", "<reply>{{ strftime_now('%H:%M:%S.%f') }}")
    (folder / "chat_template.jinja").write_text(text)


def special(folder: Path) -> None:
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "pad_token": "<user>"}))


def one_weight(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.2.mlp.up_proj.weight"][17, 3] += 1e-6
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def vocabulary(folder: Path) -> None:
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    words = content["model"]["vocab"]
    words["a"], words["b"] = words["b"], words["a"]
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("change", [ends, dated, special, one_weight, vocabulary])
def test_what_changes_replies_changes_their_key(
    change: Callable[[Path], None], tmp_path: Path
) -> None:
    folder = save_tiny(tmp_path)
    first = model_key(load_model(str(folder)), None, PROMPTS)
    assert model_key(load_model(str(folder)), None, PROMPTS) == first
    change(folder)
    assert model_key(load_model(str(folder)), None, PROMPTS) != first


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.int8, torch.float8_e4m3fn])
@pytest.mark.parametrize("size", [1, 7, 300, 1_100_003])
def test_the_digest_sees_every_value_and_its_place(kind: torch.dtype, size: int) -> None:
    torch.manual_seed(size)
    values = torch.randint(1, 9, (size,)).float()

    def digest() -> str:
        module = nn.Module()
        module.register_buffer("values", values.to(kind))
        return weights_digest(module)

    seen = {digest()}
    for place in {0, size // 2, size - 1}:
        values[place] += 16
        seen.add(digest())
    assert len(seen) == 1 + len({0, size // 2, size - 1})
    if size > 1:
        values = values.roll(1)
        assert digest() not in seen


def test_the_digest_is_made_anew_after_an_edit_in_place() -> None:
    module = nn.Linear(4, 4)
    before = weights_digest(module)
    with torch.no_grad():
        module.weight[2, 2] += 1
    assert weights_digest(module) != before
