"""What can be loaded, and one sentence for what cannot."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from architectures import build
from broken import trial
from command import SMALL_STAGES, Command
from conftest import CHAT_TEMPLATE, save_tiny, tiny_tokenizer
from somatlas import InputError
from somatlas.exports.edited_model import probe_logits
from somatlas.models import memory
from somatlas.models.language_model import LanguageModel
from somatlas.models.load import load_config, load_model
from somatlas.models.plain_text import plain_text_loss


def test_pickled_weights_are_never_loaded(command: Command, tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "m")
    torch.save(load_model(str(folder)).model.state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    message = command.fails("doctor", folder)
    assert "no safetensors weights, and pickled ones are never loaded" in message


def edited(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> Path:
    """A tiny checkpoint whose tensors were changed."""
    save_tiny(folder)
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


DOWN = "model.layers.1.mlp.down_proj.weight"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w: w.pop(DOWN), f"lacks weights that it needs: {DOWN}"),
        (lambda w: w.update({"other": w.pop(DOWN)}), f"{DOWN}; nothing reads other"),
        (lambda w: w.update({DOWN: w[DOWN].T.contiguous()}), f"{DOWN} has the shape 64x32, 32x64"),
        (lambda w: w.update({DOWN: w[DOWN].to(torch.int8)}), f"{DOWN} is stored as I8"),
        (
            lambda w: w.update(
                {DOWN: w[DOWN].to(torch.float8_e4m3fn), f"{DOWN}_scale_inv": torch.ones(1, 1)}
            ),
            f"{DOWN} is stored as F8_E4M3",
        ),
    ],
)
def test_what_a_model_would_run_without_is_named(
    change: Callable[[dict[str, Tensor]], object], said: str, command: Command, tmp_path: Path
) -> None:
    for stage in ("doctor", "represent"):
        folder = edited(tmp_path / stage, change)
        assert said in command.fails(stage, folder, "--out", tmp_path / "runs")


def test_a_lost_expert_is_named_by_its_own_name(tmp_path: Path) -> None:
    """The library stacks experts, and speaks of the stack alone."""
    build("Mixtral").save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    lost = next(key for key in tensors if "experts.2." in key)
    del tensors[lost]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=f"lacks weights that it needs: {re.escape(lost)}"):
        load_model(str(tmp_path))


def test_what_nothing_reads_is_named_by_doctor_and_in_the_run(
    command: Command, tmp_path: Path
) -> None:
    extra = {"mtp.fc.weight": torch.ones(3, 3), "model.layers.4.mlp.up_proj.weight": torch.ones(2)}
    folder = edited(tmp_path / "m", lambda w: w.update(extra))
    result = command("doctor", folder)
    assert result.code == 0
    assert all(f"{name}" in result.out for name in extra)
    result = command("represent", folder, *SMALL_STAGES["represent"], "--out", tmp_path / "runs")
    assert "nothing reads" in result.err
    run = tmp_path / "runs" / "m" / "default"
    record = json.loads((run / "stages.json").read_text())["represent"]["model"]
    assert record["unread"] == sorted(extra)
    command("report", run)
    assert "mtp.fc.weight" in (run / "report.html").read_text()


def test_a_run_of_other_weights_is_not_gone_on_with(command: Command, tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "m")
    place = ("--out", tmp_path / "runs")
    assert command("represent", folder, *SMALL_STAGES["represent"], *place).code == 0
    tensors = load_file(folder / "model.safetensors")
    tensors[DOWN][3, 5] += 0.01
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    message = command.fails("layers", folder, *SMALL_STAGES["layers"], *place)
    assert "made with other weights" in message


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w: w.update({DOWN: w[DOWN].to(torch.float8_e4m3fn)}), f"{DOWN} stored as F8_E4M3"),
        (lambda w: w[DOWN].zero_(), f"every value of {DOWN} is the same"),
        (lambda w: w["model.layers.2.input_layernorm.weight"].zero_(), "not so in other blocks"),
        (lambda w: w["model.embed_tokens.weight"][9].fill_(torch.nan), "NaN or infinite"),
    ],
)
def test_what_is_odd_about_values_is_said(
    change: Callable[[dict[str, Tensor]], object], said: str, tmp_path: Path
) -> None:
    lm = load_model(str(edited(tmp_path, change)))
    assert any(said in note for note in lm.notes), lm.notes


def test_a_model_that_predicts_no_text_is_said_to_be_none(tiny: LanguageModel) -> None:
    """Of random values; one that knows the next token is none the worse than a unigram model."""
    assert any("does not look like a language model: loss" in note for note in tiny.notes)

    class Knows(torch.nn.Module):
        config, device = tiny.model.config, torch.device("cpu")

        def forward(self, input_ids: Tensor, **_: Any) -> Any:
            following = input_ids.roll(-1, dims=1)
            logits = torch.nn.functional.one_hot(following, 261) * 8.0
            return type("Output", (), {"logits": logits})

    found = plain_text_loss(replace(tiny, model=Knows()))
    assert found.is_language
    assert found.model < 0.2
    assert 2.5 < found.unigram < 4  # letters of English: 2.9 nats


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.json", "generation_config.json", "chat_template.jinja"]
)
def test_a_file_that_is_cut_is_named(name: str, command: Command, tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "m")
    (folder / name).write_bytes((folder / name).read_bytes()[:60])
    message = command.fails("doctor", folder)
    assert name.removesuffix(".jinja").replace("_", " ") in message.replace("_", " ")


@pytest.mark.slow
def test_checkpoints_broken_at_random_are_not_run_without_a_word() -> None:
    """A square matrix that was transposed is as random as it was: there is nothing to see."""
    rows = trial(40)
    silent = [row for row in rows if row[2] == "SILENT"]
    assert all(way == "tensor transposed" and "self_attn" in what for way, what, *_ in silent)
    assert len(silent) <= 2


def test_a_flat_configuration_of_qwen2_5_vl_loads(tmp_path: Path) -> None:
    """As on the hub: the text's settings stand beside the vision's, not in a table of their own."""
    build("Qwen2.5-VL").save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    nested = load_model(str(tmp_path))
    config = json.loads((tmp_path / "config.json").read_text())
    text = config.pop("text_config")
    del text["model_type"]
    (tmp_path / "config.json").write_text(json.dumps({**text, **config}))
    flat = load_model(str(tmp_path))
    assert type(flat.model).__name__ == "Qwen2_5_VLForConditionalGeneration"
    torch.testing.assert_close(probe_logits(flat), probe_logits(nested))


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


@pytest.mark.parametrize("device", ["auto", "spread"])
def test_auto_and_spread_use_what_there_is(tiny_folder: Path, device: str) -> None:
    lm = load_model(str(tiny_folder), device=device)
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
    said = load_config(str(path))
    assert (said.num_hidden_layers, said.vocab_size) == (lm.n_layers, lm.limits.vocabulary)
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
