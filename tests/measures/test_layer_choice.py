"""Layers scored side by side equal one ablation at a time, and the choice is the rule's."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from somatlas import Projection
from somatlas.measures import layer_rule
from somatlas.measures.layer_choice import (
    FEW,
    LayerChoice,
    RuleData,
    measured,
    opening_of,
    score_layers,
)
from somatlas.measures.layer_effects import LayerEffect, layer_effects
from somatlas.measures.layer_rule import (
    LayerScore,
    best_layer,
    first_token_log_probabilities,
    mean_kl,
    refusal_scores,
    rivals,
)
from somatlas.models.language_model import LanguageModel
from somatlas.prompts import bundled_prompts
from somatlas.prompts.prompt_set import spread, texts

PROMPTS = ["Hi", "A longer prompt than that", "Where?"]
TOKENS = [5, 9]
VAL = bundled_prompts().val


@pytest.mark.parametrize("batch_size", [2, 16], ids=["a layer a batch", "layers side by side"])
def test_each_layer_is_scored_under_its_own_ablation(tiny: LanguageModel, batch_size: int) -> None:
    directions = torch.randn(2, 32, generator=torch.Generator().manual_seed(0))
    found = dict(
        layer_effects(
            tiny,
            dict(zip([1, 3], directions, strict=True)),
            PROMPTS[:2],
            PROMPTS,
            refusal_tokens=TOKENS,
            base_harmless=first_token_log_probabilities(tiny, PROMPTS, 3),
            batch_size=batch_size,
        )
    )
    assert list(found) == [1, 3]
    for layer, direction in zip(found, directions, strict=True):
        refusal, kl = alone(tiny, direction, PROMPTS[:2], PROMPTS)
        assert np.mean(found[layer].kl) == pytest.approx(kl, rel=1e-3)
        assert found[layer].refusal == pytest.approx(refusal, rel=1e-3, abs=1e-3)


def alone(
    lm: LanguageModel, direction: torch.Tensor, harmful: list[str], harmless: list[str]
) -> tuple[list[float], float]:
    """Refusal scores and mean KL, one ablation and all prompts at a time."""
    base = first_token_log_probabilities(lm, harmless, 8)
    scores, ablated = (
        first_token_log_probabilities(lm, side, 8, Projection(direction[None]))
        for side in (harmful, harmless)
    )
    return refusal_scores(scores, TOKENS).tolist(), mean_kl(base, ablated)


def data(lm: LanguageModel, prompts: int = 12) -> RuleData:
    """Twelve candidates, each with a random direction."""
    directions = torch.randn(12, lm.d_model, generator=torch.Generator().manual_seed(1))
    sides = spread(VAL.harmful, prompts), spread(VAL.harmless, prompts)
    return RuleData(dict(enumerate(directions)), sides, sides, {})


def scored(lm: LanguageModel, given: RuleData, **how: Any) -> LayerChoice:
    """All candidates scored on the model at hand."""
    opening = opening_of(lm, given, TOKENS, 0.0, 128)
    return score_layers(given, list(given.single), opening, partial(measured, lm, 128), **how)


@pytest.mark.parametrize("gentle", [4, 0])
def test_the_choice_is_the_rules_and_only_rivals_are_scored_on_all(
    tiny: LanguageModel, gentle: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = data(tiny)
    harmful, harmless = map(texts, given.val)
    every = []
    for layer, direction in given.single.items():
        refusal, kl = alone(tiny, direction, harmful, harmless)
        every.append(LayerScore(layer, float(np.mean(refusal)), kl))
    by_kl = sorted(score.kl for score in every)
    monkeypatch.setattr(
        layer_rule, "MAX_KL", (by_kl[gentle] + by_kl[gentle - 1]) / 2 * bool(gentle)
    )
    found = scored(tiny, given)
    assert (found.layer, found.kl_below_limit) == best_layer(every)
    assert found.kl_below_limit == bool(gentle)
    whole = [score.layer for score in found.scores if score.n is None]
    assert whole == rivals({score.layer: score.kl for score in every})
    assert len(whole) == gentle or not gentle
    for score, expected in zip(found.scores, every, strict=True):
        assert score.kl == pytest.approx(expected.kl, rel=1e-3)
        assert score.n in (None, FEW)
        if score.n is None:
            assert score.refusal_score == pytest.approx(expected.refusal_score, abs=1e-3)


def test_few_prompts_are_all_used(tiny: LanguageModel) -> None:
    given = data(tiny, prompts=4)
    found = scored(tiny, given)
    assert {score.n for score in found.scores} == {None}


def test_an_interrupted_choice_goes_on_and_ends_alike(tiny: LanguageModel) -> None:
    given, kept = data(tiny), list[dict[int, LayerEffect]]()

    def keep(found: Mapping[int, LayerEffect]) -> None:
        kept.append({i: LayerEffect([*e.refusal], [*e.kl]) for i, e in found.items()})

    whole = scored(tiny, given, keep=keep)
    for known in (kept[4], kept[11], kept[-1]):
        left = len(kept) - 1 - kept.index(known)
        again: list[Mapping[int, LayerEffect]] = []
        found = scored(tiny, given, known=known, keep=again.append)
        assert len(again) == left
        assert found.layer == whole.layer
        for one, other in zip(found.scores, whole.scores, strict=True):
            assert (one.layer, one.n) == (other.layer, other.n)
            assert one.refusal_score == pytest.approx(other.refusal_score, abs=1e-4)
