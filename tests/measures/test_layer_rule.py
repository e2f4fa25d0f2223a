"""Refusal tokens, refusal score, KL and the layer rule, against their definitions."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from somatlas import InputError
from somatlas.measures.layer_rule import (
    LayerScore,
    best_layer,
    candidate_layers,
    find_refusal_tokens,
    first_token_log_probabilities,
    mean_kl,
    refusal_scores,
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


def opening(*rows: dict[int, float], vocabulary: int = 8) -> torch.Tensor:
    """(n, vocabulary) log p of first tokens: those named, the rest spread over the others."""
    log_p = torch.full((len(rows), vocabulary), 1e-9)
    for line, row in zip(log_p, rows, strict=True):
        line[list(row)] = torch.tensor(list(row.values()))
        line[0] = max(1e-9, 1 - sum(row.values()))
    return log_p.log()


def test_refusal_tokens_open_several_harmful_prompts_and_few_harmless_ones() -> None:
    """1 opens five, 2 two, 4 to 7 one request each, and 3 the harmless ones as well."""
    harmful = opening(
        *[{1: 0.6, 3: 0.3}] * 3,
        *[{2: 0.9}] * 2,
        {1: 0.4, 4: 0.5},
        {1: 0.4, 5: 0.5},
        {6: 1.0},
        {7: 1.0},
    )
    harmless = opening(*[{3: 0.3}] * 9)
    assert find_refusal_tokens(harmful, harmless) == [1]
    assert find_refusal_tokens(torch.cat([harmful, harmful[3:4]]), harmless) == [2, 1]


def test_the_words_of_single_requests_are_no_refusal() -> None:
    """Eight prompts a side on a model that answers: four words were once taken for refusals."""
    harmful = opening(*[{token: 0.9} for token in (1, 2, 3, 4, 5, 6, 7, 7)])
    harmless = opening(*[{}] * 8)
    with pytest.raises(InputError, match=r"at least 3 of 8 .*'<7>' 2, .*--refusal-tokens"):
        find_refusal_tokens(harmful, harmless, decode=lambda token: f"<{token}>")


@pytest.mark.parametrize(("prompts", "least"), [(8, 3), (60, 3), (64, 4), (200, 10)])
def test_a_refusal_token_opens_three_prompts_and_a_twentieth_of_them(
    prompts: int, least: int
) -> None:
    def found(count: int) -> list[int]:
        rows = [{1: 0.9}] * count + [{2 + i % 5: 0.05} for i in range(prompts - count)]
        return find_refusal_tokens(opening(*rows), opening({}))

    assert found(least) == [1]
    with pytest.raises(InputError, match=f"at least {least} of {prompts}"):
        found(least - 1)


def test_a_token_of_one_category_alone_is_that_categorys_word() -> None:
    harmful = opening(*[{1: 0.9}] * 4, *[{2: 0.9}] * 4)
    categories = ["a", "a", "b", "b", "c", "c", "c", "c"]
    assert find_refusal_tokens(harmful, opening({})) == [1, 2]
    assert find_refusal_tokens(harmful, opening({}), categories) == [1]
    assert find_refusal_tokens(harmful, opening({}), ["c"] * 8) == [1, 2]  # nothing to tell apart


def test_the_papers_epsilon_bounds_the_score() -> None:
    """log(p + 1e-8) - log(1 - p + 1e-8), as utils/select_layer.py of its code, in plain float64."""
    log_p = torch.randn(50, 7, dtype=torch.float64).mul(12).log_softmax(-1)
    p = log_p.exp()[:, [1, 4]].sum(dim=1)
    expected = (p + 1e-8).log() - (1 - p + 1e-8).log()
    torch.testing.assert_close(refusal_scores(log_p, [1, 4], 1e-8), expected, rtol=0, atol=1e-6)
    certain = torch.tensor([[0.0, 500.0], [500.0, 0.0]]).log_softmax(-1)
    assert refusal_scores(certain, [1], 1e-8).tolist() == pytest.approx([18.42, -18.42], abs=0.01)
    assert refusal_scores(certain, [1]).tolist() == pytest.approx([500, -500])


def test_the_first_80_percent_of_the_layers_are_candidates() -> None:
    assert [len(candidate_layers(n)) for n in (1, 4, 30, 32)] == [1, 3, 24, 25]


def test_the_rule_takes_the_lowest_score_among_gentle_layers() -> None:
    scores = [LayerScore(0, 5.0, 0.01), LayerScore(1, -2.0, 0.09), LayerScore(2, -9.0, 0.1)]
    assert best_layer(scores) == (1, True)


def test_without_a_gentle_layer_one_that_breaks_the_model_does_not_win() -> None:
    scores = [LayerScore(0, 5.0, 0.2), LayerScore(1, -2.0, 0.4), LayerScore(2, -9.0, 3.0)]
    assert best_layer(scores) == (1, False)


@given(st.lists(st.tuples(st.floats(-50, 50), st.floats(0, 0.5)), min_size=1, max_size=30))
def test_no_layer_beats_the_chosen_one(pairs: list[tuple[float, float]]) -> None:
    scores = [LayerScore(i, s, kl) for i, (s, kl) in enumerate(pairs)]
    chosen, gentle = best_layer(scores)
    assert gentle == any(s.kl < 0.1 for s in scores)
    least = min(s.kl for s in scores)
    rivals = [s for s in scores if (s.kl < 0.1 if gentle else s.kl <= 2 * least)]
    assert scores[chosen] in rivals
    assert all(scores[chosen].refusal_score <= s.refusal_score for s in rivals)
