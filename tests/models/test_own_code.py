"""Models that bring code of their own, which may know less than the library's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from conftest import save_tiny, tiny_llama
from somatlas import InputError, Projection
from somatlas.measures.drift import Drift
from somatlas.measures.layer_rule import first_token_log_probabilities
from somatlas.models.batches import cache_argument
from somatlas.models.generation import generate
from somatlas.models.language_model import LanguageModel
from somatlas.models.likelihood import Surprise
from somatlas.models.load import load_model

PROMPTS = ["Hi", "A longer prompt than that", "Where?"]
REPLIES = ["Here.", "", "It is over there"]

# As in Qwen's first chat models: no logits_to_keep, no further keyword arguments.
CODE = """
from transformers import LlamaForCausalLM

class OldModel(LlamaForCausalLM):
    def forward(self, input_ids=None, attention_mask=None, position_ids=None,
                {cache}=None, use_cache=None, return_dict=None):
        {first}
        return super().forward(
            input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids,
            {cache}={cache}, use_cache=use_cache,
        )
"""


def save_old(folder: Path, first: str = "pass") -> Path:
    """The tiny model with code of its own; first : what its forward pass does first."""
    save_tiny(folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "architectures": ["OldModel"],
        "auto_map": {"AutoModelForCausalLM": "own.OldModel"},
        "transformers_version": "4.31.0",
    }
    (folder / "config.json").write_text(json.dumps(config))
    code = CODE.replace("{first}", first).replace("{cache}", cache_argument(tiny_llama()))
    (folder / "own.py").write_text(code)
    return folder


@pytest.fixture
def old(tmp_path: Path) -> LanguageModel:
    return load_model(str(save_old(tmp_path / "old")), trust_remote_code=True)


def test_a_forward_without_logits_to_keep_gives_the_same_numbers(
    old: LanguageModel, tiny: LanguageModel
) -> None:
    with pytest.raises(TypeError, match="logits_to_keep"):
        old.model(input_ids=torch.tensor([[5, 6]]), logits_to_keep=1)
    P = Projection(torch.randn(1, 32, generator=torch.Generator().manual_seed(0)))

    def measured(lm: LanguageModel) -> list[torch.Tensor]:
        surprise = Surprise(lm, 2)(PROMPTS, [[7, 8, 9], [], [4]], room=3)
        return [
            first_token_log_probabilities(lm, PROMPTS, 2),
            torch.tensor(Drift(lm, PROMPTS, REPLIES, 2).by_reply(P)),
            torch.tensor([loss for row in surprise for loss in row]),
        ]

    for got, expected in zip(measured(old), measured(tiny), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    replies = [generate(lm, PROMPTS, max_new_tokens=8, batch_size=2) for lm in (old, tiny)]
    assert replies[0] == replies[1]


@pytest.mark.parametrize(
    "first",
    [
        "self.get_head_mask(None, 4)",  # gone since transformers 5
        "assert {cache} is None or isinstance({cache}, tuple)",  # as caches were once
    ],
)
def test_code_that_does_not_run_is_refused_in_a_sentence(tmp_path: Path, first: str) -> None:
    folder = save_old(tmp_path / "old", first)
    with pytest.raises(InputError, match=r"does not run under transformers 5.*for 4\.31") as caught:
        load_model(str(folder), trust_remote_code=True)
    assert "\n" not in str(caught.value)
