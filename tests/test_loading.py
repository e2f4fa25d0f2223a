"""What can be loaded, and one sentence for what cannot."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from command import Command
from conftest import CHAT_TEMPLATE, save_tiny, tiny_tokenizer
from somatlas import InputError
from somatlas.models import memory
from somatlas.models.load import load_model


def test_pickled_weights_are_never_loaded(command: Command, tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "m")
    torch.save(load_model(str(folder)).model.state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    message = command.fails("doctor", folder)
    assert "no safetensors weights, and pickled ones are never loaded" in message


def test_code_that_comes_with_a_model_is_not_run_unless_asked(
    command: Command, tmp_path: Path
) -> None:
    folder = save_tiny(tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    message = command.fails("doctor", folder)
    assert "needs code that comes with the model" in message
    assert "--trust-remote-code" in message
    assert not (tmp_path / "ran").exists()


def test_too_little_memory_is_foreseen_with_the_number(
    command: Command, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda _device: 1 << 10)
    monkeypatch.setattr(
        "somatlas.models.checkpoint.AutoModelForCausalLM.from_pretrained",
        lambda *_a, **_k: pytest.fail("loaded all the same"),
    )
    message = command.fails("doctor", tiny_folder)
    assert "GiB in float32 and cpu has 0.0 GiB free" in message


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_memory_foreseen_is_what_the_weights_take(
    tmp_path: Path, tied: bool, dtype: torch.dtype
) -> None:
    model = load_model(str(save_tiny(tmp_path / "m", tied=tied))).model
    parameters = sum(p.numel() for p in model.parameters())
    assert memory.weight_bytes(model.config, dtype) == parameters * dtype.itemsize


@pytest.mark.parametrize("device", ["cuda:7", "meta7", "tpu"])
def test_a_device_that_is_not_there(command: Command, tiny_folder: Path, device: str) -> None:
    message = command.fails("doctor", tiny_folder, "--device", device)
    assert f"device {device!r} is not there" in message


def test_auto_uses_what_there_is(tiny_folder: Path) -> None:
    lm = load_model(str(tiny_folder), device="auto")
    assert lm.model.device.type in ("cpu", "cuda", "mps")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_loaded_and_ablated(tiny_folder: Path, dtype: str) -> None:
    from somatlas import Projection

    lm = load_model(str(tiny_folder), dtype=dtype)
    with lm.ablate(Projection(torch.ones(1, lm.d_model))):
        log_p = next(lm.next_token_log_probabilities(["Hi"], 1))[1]
    assert log_p.isfinite().all()


def test_a_model_without_a_template_takes_one(command: Command, tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "m")
    (folder / "chat_template.jinja").unlink()
    assert "has no chat template" in command.fails("doctor", folder)
    lm = load_model(str(folder), chat_template="chatml")
    assert lm.tokenizer.decode(lm.token_ids("Hi")).endswith("assistant\n")
    (tmp_path / "mine.jinja").write_text(CHAT_TEMPLATE)
    lm = load_model(str(folder), chat_template=str(tmp_path / "mine.jinja"))
    assert lm.tokenizer.decode(lm.token_ids("Hi")).endswith("<reply>")
    with pytest.raises(InputError, match=r"none\.jinja cannot be read"):
        load_model(str(folder), chat_template=str(tmp_path / "none.jinja"))


def test_a_gguf_file_is_a_model(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """As GGUF the weights give a checkpoint's logits; no bar is drawn where it is no terminal."""
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer) + 1,  # the format wants a merge, here of a and b
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=1,
        initializer_range=0.3,
    )
    model = LlamaForCausalLM(config).eval()
    path = tmp_path / "tiny.gguf"
    _write_gguf(path, model, tokenizer)
    capfd.readouterr()
    lm = load_model(str(path))
    assert capfd.readouterr().err == ""
    assert lm.name == "tiny"
    ids = torch.tensor([[5, 9, 30, 7]])
    with torch.no_grad():
        torch.testing.assert_close(
            lm.model(input_ids=ids).logits, model(input_ids=ids).logits, rtol=1e-4, atol=1e-4
        )
    lm.model.save_pretrained(tmp_path / "saved")  # as --save-model does
    again = LlamaForCausalLM.from_pretrained(tmp_path / "saved")
    torch.testing.assert_close(again(input_ids=ids).logits, model(input_ids=ids).logits)


def _write_gguf(path: Path, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    config, writer = model.config, gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(512)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(config.vocab_size)
    tokens = [*tokenizer.convert_ids_to_tokens(range(config.vocab_size - 1)), "ab"]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types(
        [gguf.TokenType.CONTROL if t.startswith("<") and len(t) > 1 else 1 for t in tokens]
    )
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_chat_template(CHAT_TEMPLATE)
    names = {
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    outer = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
    }
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, value in model.state_dict().items():
        array = value.numpy().astype(np.float32)
        if name in outer:
            writer.add_tensor(outer[name], array)
            continue
        _, _, block, *middle = name.split(".")
        part = ".".join(middle[:-1])
        if count := heads.get(part.rpartition(".")[2]):  # GGUF interleaves the rotary halves
            split = array.reshape(count, 2, array.shape[0] // count // 2, *array.shape[1:])
            array = split.swapaxes(1, 2).reshape(array.shape)
        writer.add_tensor(f"blk.{block}.{names[part]}.weight", array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
