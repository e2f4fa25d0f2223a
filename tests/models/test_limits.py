"""What a model has no row for is refused before it fails inside torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AddedToken

from architectures import ARCHITECTURES, USUAL, language_model
from command import Command
from conftest import save_tiny, tiny_tokenizer
from somatlas import InputError
from somatlas.models.generation import generate
from somatlas.models.limits import limits_of
from somatlas.models.load import load_model
from somatlas.representations.extract import residual_stream


def save_with_tokens(folder: Path, *tokens: str) -> Path:
    """A tiny model whose tokenizer has more tokens than its embedding has rows."""
    save_tiny(folder)
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens([AddedToken(token, special=False) for token in tokens])
    tokenizer.save_pretrained(folder)
    return folder


def test_a_token_beyond_the_embedding_is_named(command: Command, tmp_path: Path) -> None:
    folder = save_with_tokens(tmp_path / "m", "lakes")
    lm = load_model(str(folder))  # no prompt has needed it yet
    with pytest.raises(InputError, match="gives token 261, and its embedding has 261 rows"):
        residual_stream(lm, ["Name three lakes."], [0], batch_size=1)
    with pytest.raises(InputError, match="gives token 261"):
        generate(lm, ["Name three lakes."], max_new_tokens=1, batch_size=1)
    folder = save_with_tokens(tmp_path / "n", "Europe")
    assert "gives token 261" in command.fails("doctor", folder)


def test_a_padding_token_without_a_row_is_not_used(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "m")
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(folder)
    prompts = ["Hi", "Name three rivers."]
    found = residual_stream(load_model(str(folder)), prompts, [2], batch_size=2)
    expected = residual_stream(
        load_model(str(save_tiny(tmp_path / "n"))), prompts, [2], batch_size=2
    )
    torch.testing.assert_close(found, expected)


TABLES = {
    "GPT2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 40},
    "OPT": {
        "hidden_size": 32,
        "word_embed_proj_dim": 32,
        "ffn_dim": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 40,
    },
    "GPTBigCode": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 40},
    "GPTJ": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 40, "rotary_dim": 4},
}


@pytest.mark.parametrize("kind", TABLES)
def test_a_table_of_positions_has_an_end(kind: str) -> None:
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=261, bos_token_id=0, eos_token_id=1, pad_token_id=2, **TABLES[kind]
    )
    model = transformers.AutoModelForCausalLM.from_config(config)
    limits = limits_of(model)
    assert (limits.positions, limits.fixed) == (40, True)
    model(input_ids=torch.ones(1, 40, dtype=torch.long))  # so many it does take
    limits.check("m", [[1] * 30], room=10)
    with pytest.raises(InputError, match="40 positions, too few for a prompt of 31 tokens and 10"):
        limits.check("m", [[1] * 5, [1] * 31], room=10)


def test_rotary_positions_have_none() -> None:
    for name in ("Llama", "Gemma2", "DeepSeek-V3", "Falcon", "LFM2"):
        limits = language_model(name).limits
        assert not limits.fixed, name
        limits.check("m", [[1] * 9999])
    assert language_model("Llama").limits.too_long([[1] * 512, [1] * 513]) == 1


def test_a_tensor_of_another_shape_is_one_sentence(command: Command, tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "m")
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.2.mlp.down_proj.weight"] = torch.zeros(32, 60)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    message = command.fails("doctor", folder)
    assert "has the shape 32x60, 32x64 is wanted" in message


_LONG_ROPE = {
    "original_max_position_embeddings": 30,
    "rope_parameters": {
        **{"rope_type": "longrope", "rope_theta": 1e4},
        **{"short_factor": [1.0] * 4, "long_factor": [4.0] * 4},
    },
}
PROMPTS = [
    "Hi",
    "A much longer prompt that goes on for a while",
    "Where is it?",
    "Name a river",
    "",
]


@pytest.mark.parametrize(
    ("name", "changes", "length"),
    [
        ("DeepSeek-V3.2", {"index_topk": 8}, 8),
        ("AX-K2", {"index_topk": 8}, 8),
        ("GLM-5", {"index_topk": 8}, 8),
        ("dots3-note", {"index_topk": 8}, 8),
        ("Mistral-Large4", {"index_topk": 8}, 8),
        ("MiniMax-M3", {"index_block_size": 16}, 16),
        ("Phi3", _LONG_ROPE, 30),
    ],
)
def test_long_rows_share_no_batch_where_only_short_ones_may(
    name: str, changes: dict[str, Any], length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The short prompts that padding is tried on at load meet no sparsity and no long positions."""
    kind, usual = ARCHITECTURES[name]
    monkeypatch.setitem(ARCHITECTURES, name, (kind, {**usual, **changes}))
    lm = language_model.__wrapped__(name)
    assert lm.pads
    assert lm.limits.padded == length
    unequal = [
        batch for batch in lm.batches(PROMPTS, 8) if not bool(batch.attention_mask.bool().all())
    ]
    assert all(batch.attention_mask.shape[1] <= length for batch in unequal)
    assert length < 16 or unequal  # short ones still do

    batch = residual_stream(lm, PROMPTS, range(lm.n_layers), batch_size=8)
    single = residual_stream(lm, PROMPTS, range(lm.n_layers), batch_size=1)
    torch.testing.assert_close(batch, single, rtol=1e-4, atol=1e-4 * float(single.abs().max()))
    replies = generate(lm, PROMPTS, max_new_tokens=8, batch_size=8)
    assert replies == [generate(lm, [p], max_new_tokens=8, batch_size=1)[0] for p in PROMPTS]


def test_positions_that_stretch_with_the_longest_text_so_far_have_an_end() -> None:
    rope = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}
    config = transformers.LlamaConfig(
        **USUAL | {"max_position_embeddings": 30}, rope_parameters=rope
    )
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    ids = torch.arange(3, 43)[None]
    before = model(input_ids=ids[:, :35]).logits
    model(input_ids=ids)
    assert not torch.allclose(model(input_ids=ids[:, :35]).logits, before)  # it remembers
    with pytest.raises(InputError, match="30 positions, too few for a prompt of 31 tokens"):
        limits_of(model).check("m", [[1] * 31])
