"""Where a model goes and in which precision, where that is left open."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig

from command import Command
from conftest import tiny_llama, tiny_tokenizer
from somatlas.models import placement
from somatlas.models.load import load_model
from somatlas.models.placement import chosen_device, chosen_precision
from somatlas.runs.setting_sources import read_config_file


def large() -> LlamaConfig:
    """Half a billion parameters, of which none is made."""
    return LlamaConfig(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, vocab_size=50_000
    )


def test_a_device_that_is_named_is_taken_and_auto_is_one_that_is_there() -> None:
    assert chosen_device("cuda:3") == "cuda:3"
    assert torch.empty(1, device=chosen_device("auto")).numel() == 1


def test_on_a_gpu_the_precision_is_the_checkpoints_own() -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        config = LlamaConfig(dtype=dtype)
        assert chosen_precision(config, "cuda").dtype == str(dtype).removeprefix("torch.")


@pytest.mark.parametrize(("gain", "dtype"), [(1.5, "bfloat16"), (1.1, "float32"), (0.4, "float32")])
def test_a_large_model_on_a_cpu_has_the_faster(
    gain: float, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    speeds = {torch.float32: gain, torch.bfloat16: 1.0}
    monkeypatch.setattr(placement, "_seconds", lambda _shapes, dtype: speeds[dtype])
    found = chosen_precision(large(), "cpu")
    assert found.dtype == dtype
    assert f"{gain:.1f} times" in found.reason


def test_a_small_one_has_float32_and_nothing_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "_seconds", lambda *_: pytest.fail("tried"))
    assert chosen_precision(tiny_llama().config, "cpu").dtype == "float32"
    assert chosen_precision(large(), "cuda").dtype == "float32"


def test_products_are_timed_in_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "_SECONDS", 0.001)
    for dtype in (torch.float32, torch.bfloat16):
        assert placement._seconds({(64, 64): 4, (100, 64): 1}, dtype) > 0


def test_what_was_decided_is_said_recorded_and_kept(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_llama().save_pretrained(tmp_path / "m")
    tiny_tokenizer().save_pretrained(tmp_path / "m")
    line = ("represent", tmp_path / "m", "--train-prompts", "24", "--out", tmp_path)
    first = command(*line)
    assert first.code == 0, first.err
    assert "dtype float32: the model is small" in first.err
    folder = tmp_path / "m" / "default"
    assert read_config_file(folder / "config.toml")["dtype"] == "float32"
    monkeypatch.setattr("somatlas.runs.folder.precision_of", lambda *_: pytest.fail("again"))
    assert command(*line).code == 0
    assert command(*line, "--dtype", "auto").code == 0
    assert "dtype" in command.fails(*line, "--dtype", "bfloat16")
    assert load_model(str(tmp_path / "m")).model.dtype == torch.float32
