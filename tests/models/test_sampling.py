"""Sampled replies: drawn from the model's distribution, whatever the batch; and reasoning."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from architectures import language_model
from somatlas.models.generation import generate
from somatlas.models.language_model import LanguageModel
from somatlas.models.sampling import Sampling

PROMPTS = ["Hi", "A longer prompt, of other words", "Hi", "What?"]


@pytest.mark.parametrize("name", ["Llama", "Qwen3-Next"])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_sample_depends_on_seed_prompt_and_number_alone(name: str, batch_size: int) -> None:
    lm = language_model(name)

    def draw(prompts: list[str], size: int, seed: int = 0) -> list[str]:
        sampling = Sampling(1.0, 0.95, seed)
        return generate(lm, prompts, max_new_tokens=8, batch_size=size, sampling=sampling)

    first = draw(PROMPTS, 4)
    assert draw(PROMPTS, batch_size) == first
    assert draw(PROMPTS[::-1], 4)[::-1][1] == first[1]
    assert first[0] != first[2]  # two samples of one prompt
    assert draw(PROMPTS, 4, seed=1) != first


def test_a_cold_sample_is_the_greedy_reply(tiny: LanguageModel) -> None:
    greedy = generate(tiny, PROMPTS, max_new_tokens=8, batch_size=4)
    cold = generate(tiny, PROMPTS, max_new_tokens=8, batch_size=4, sampling=Sampling(1e-4))
    assert cold == greedy


def test_draws_follow_the_distribution() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0]])
    uniforms = torch.linspace(0, 1, 10_001)[:-1]
    drawn = Sampling(2.0).draw(logits.expand(len(uniforms), -1), uniforms)
    shares = torch.bincount(drawn, minlength=3) / len(drawn)
    torch.testing.assert_close(shares, (logits[0] / 2).softmax(-1), atol=1e-3, rtol=0)


@given(st.floats(0.01, 1.0), st.floats(0, 0.999))
def test_nothing_outside_the_likeliest_mass_is_drawn(top_p: float, uniform: float) -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0, 2.0]])
    token = int(Sampling(1.0, top_p).draw(logits, torch.tensor([uniform]))[0])
    p = logits[0].softmax(-1).double()
    likelier = float(p[p > p[token]].sum())
    assert likelier < top_p
