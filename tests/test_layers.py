"""Refusal tokens, refusal score, KL and the layer rule, against their definitions."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from somatlas import InputError, Projection
from somatlas.layers import (
    LayerScore,
    candidate_layers,
    choose_layer,
    find_refusal_tokens,
    first_token_log_probabilities,
    mean_kl,
    refusal_scores,
    score_layer,
)
from somatlas.models.language_model import LanguageModel

PROMPTS = ["Hi", "A longer prompt than that", "Where?"]


def test_first_token_probabilities_equal_single_prompts(tiny: LanguageModel) -> None:
    batched = first_token_log_probabilities(tiny, PROMPTS, batch_size=3)
    with torch.no_grad():
        for row, prompt in zip(batched, PROMPTS, strict=True):
            logits = tiny.model(input_ids=torch.tensor([tiny.token_ids(prompt)])).logits[0, -1]
            torch.testing.assert_close(row, logits.log_softmax(-1), rtol=1e-4, atol=1e-4)


def test_refusal_score_is_the_log_odds_of_the_tokens() -> None:
    log_p = torch.randn(6, 11, dtype=torch.float64).log_softmax(-1)
    p = log_p.exp()[:, [3, 7]].sum(dim=1)
    torch.testing.assert_close(refusal_scores(log_p, [3, 7]), p.log() - (1 - p).log())


def test_refusal_score_is_finite_for_certain_refusals() -> None:
    log_p = torch.tensor([[0.0, 100.0, -100.0]]).log_softmax(-1)
    assert refusal_scores(log_p, [1]).isfinite().all()


def test_kl_equals_torchs() -> None:
    base, other = (torch.randn(5, 9).log_softmax(-1) for _ in range(2))
    expected = torch.nn.functional.kl_div(other, base, log_target=True, reduction="batchmean")
    assert mean_kl(base, other) == pytest.approx(float(expected), rel=1e-5)
    assert mean_kl(base, base) == 0


def test_refusal_tokens_are_those_that_set_harmful_prompts_apart() -> None:
    harmful = torch.tensor([[0.3, 0.6, 0.1, 1e-6], [0.3, 0.5, 0.2, 1e-6]]).log()
    harmless = torch.tensor([[0.98, 0.01, 0.01, 1e-9]]).log()
    assert find_refusal_tokens(harmful, harmless) == [1, 2]
    with pytest.raises(InputError, match="--refusal-tokens"):
        find_refusal_tokens(harmless, harmless)


def test_the_first_80_percent_of_the_layers_are_candidates() -> None:
    assert [len(candidate_layers(n)) for n in (1, 4, 30, 32)] == [1, 3, 24, 25]


def test_the_rule_takes_the_lowest_score_among_gentle_layers() -> None:
    scores = [LayerScore(0, 5.0, 0.01), LayerScore(1, -2.0, 0.09), LayerScore(2, -9.0, 0.1)]
    assert choose_layer(scores) == (1, True)


def test_without_a_gentle_layer_the_lowest_score_wins_with_a_warning() -> None:
    assert choose_layer([LayerScore(0, 5.0, 0.2), LayerScore(1, -2.0, 3.0)]) == (1, False)


@given(st.lists(st.tuples(st.floats(-50, 50), st.floats(0, 0.5)), min_size=1, max_size=30))
def test_no_layer_beats_the_chosen_one(pairs: list[tuple[float, float]]) -> None:
    scores = [LayerScore(i, s, kl) for i, (s, kl) in enumerate(pairs)]
    chosen, gentle = choose_layer(scores)
    assert gentle == any(s.kl < 0.1 for s in scores)
    rivals = [s for s in scores if s.kl < 0.1] if gentle else scores
    assert scores[chosen] in rivals
    assert all(scores[chosen].refusal_score <= s.refusal_score for s in rivals)


def test_each_layer_is_scored_under_its_own_ablation(tiny: LanguageModel) -> None:
    directions = torch.randn(2, 32, generator=torch.Generator().manual_seed(0))
    base = first_token_log_probabilities(tiny, PROMPTS, 3)
    scores = [
        score_layer(
            tiny,
            layer,
            direction,
            PROMPTS[:2],
            PROMPTS,
            refusal_tokens=[5, 9],
            base_harmless=base,
            batch_size=2,
        )
        for layer, direction in zip([1, 3], directions, strict=True)
    ]
    assert [s.layer for s in scores] == [1, 3]
    for s, direction in zip(scores, directions, strict=True):
        P = Projection(direction[None])
        ablated = first_token_log_probabilities(tiny, PROMPTS, 3, P)
        assert s.kl == pytest.approx(mean_kl(base, ablated), rel=1e-3)
        expected = refusal_scores(ablated[:2], [5, 9]).mean()
        assert s.refusal_score == pytest.approx(float(expected), rel=1e-3, abs=1e-3)
