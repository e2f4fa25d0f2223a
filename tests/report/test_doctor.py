"""`somatlas doctor`: what it says of a model."""

from __future__ import annotations

from pathlib import Path

import pytest

from architectures import language_model
from command import Command
from somatlas.prompts import bundled_prompts
from somatlas.report.doctor import diagnose


def test_doctor_prints_the_account(command: Command, tiny_folder: Path) -> None:
    code, out, err = command("doctor", tiny_folder)
    assert code == 0, err
    for fact in (
        "4 blocks, d_model 32, float32",
        "shares the embedding matrix",
        "4 x self_attn (LlamaAttention)",
        "4 x mlp (LlamaMLP)",
        "system role: yes",
        "BOS: 1 in a formatted prompt",
        "weights: logits differ from hooks by",
        "LoRA: not exact: it leaves out",  # the tiny model has biases
    ):
        assert fact in out, out


def test_lora_is_not_as_exact_as_weights_that_differ_from_hooks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("somatlas.report.doctor.relative_gap", lambda *_: 0.2)
    prompts = bundled_prompts().limited({"val": 4})
    account = str(diagnose(language_model("Qwen2"), prompts, batch_size=4))
    assert "weights and LoRA: no: logits differ from hooks by 2.0e-01" in account
    assert "as exact" not in account


@pytest.mark.parametrize(
    ("name", "fact"),
    [
        ("Gemma2", "self_attn (Gemma2Attention, then Gemma2RMSNorm)"),
        ("Gemma2", "leaves a leak"),
        ("Granite", "times 0.4"),
        ("Qwen2", "LoRA: as exact as the weights"),
        ("Mixtral", "stacked experts"),
    ],
)
def test_doctor_names_what_is_special(name: str, fact: str) -> None:
    prompts = bundled_prompts().limited({"val": 4})
    assert fact in str(diagnose(language_model(name), prompts, batch_size=4))


def test_a_loud_coordinate_is_named_with_what_to_do() -> None:
    prompts = bundled_prompts().limited({"val": 4})
    lm = language_model.__wrapped__("Qwen2")  # one of its own, which may be changed
    assert "none is loud" in str(diagnose(lm, prompts, batch_size=4))
    lm.model.model.layers[1].mlp.down_proj.weight[5] *= 1e4
    account = str(diagnose(lm, prompts, batch_size=4))
    assert "layer 1: coordinate 5 has 100% of the mean difference's squared length" in account
    assert "loud at layers 1, 2: " in account
    assert "--scale mask" in account
