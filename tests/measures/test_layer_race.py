"""The race of layers: effects against one ablation at a time, and a choice that is the rule's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from somatlas import Projection
from somatlas.measures.layer_choice import _race
from somatlas.measures.layer_race import (
    LayerEffect,
    in_the_race,
    layer_effects,
    race_order,
    rounds,
)
from somatlas.measures.layer_rule import (
    best_layer,
    first_token_log_probabilities,
    mean_kl,
    refusal_scores,
)
from somatlas.models.language_model import LanguageModel

PROMPTS = ["Hi", "A longer prompt than that", "Where?"]


@pytest.mark.parametrize("batch_size", [2, 16], ids=["a layer a batch", "layers side by side"])
def test_each_layer_is_scored_under_its_own_ablation(tiny: LanguageModel, batch_size: int) -> None:
    directions = torch.randn(2, 32, generator=torch.Generator().manual_seed(0))
    base = first_token_log_probabilities(tiny, PROMPTS, 3)
    found = dict(
        layer_effects(
            tiny,
            dict(zip([1, 3], directions, strict=True)),
            PROMPTS[:2],
            PROMPTS,
            refusal_tokens=[5, 9],
            base_harmless=base,
            batch_size=batch_size,
        )
    )
    assert list(found) == [1, 3]
    for effect, direction in zip(found.values(), directions, strict=True):
        ablated = first_token_log_probabilities(tiny, PROMPTS, 3, Projection(direction[None]))
        assert np.mean(effect.kl) == pytest.approx(mean_kl(base, ablated), rel=1e-3)
        expected = refusal_scores(ablated[:2], [5, 9]).tolist()
        assert effect.refusal == pytest.approx(expected, rel=1e-3, abs=1e-3)


@given(st.integers(1, 200))
def test_the_first_prompts_of_the_race_are_spread_over_all(n: int) -> None:
    order = race_order(n)
    assert sorted(order) == list(range(n))
    for first in (8, 16):
        if first < n:
            widest = np.diff([0, *sorted(order[:first]), n]).max()
            assert widest <= 2 * n / first + 1


def test_few_prompts_are_one_round() -> None:
    assert [rounds(n) for n in (1, 8, 9, 32)] == [[1], [8], [8, 9], [8, 16, 32]]


class Planted:
    """Layers whose effects on each prompt are known, and how many prompts were asked."""

    def __init__(self, refusal: NDArray[np.float64], kl: NDArray[np.float64]) -> None:
        self.refusal, self.kl, self.asked = refusal, kl, 0

    def __call__(
        self, layers: Sequence[int], harmful: Sequence[int], harmless: Sequence[int]
    ) -> Iterator[tuple[int, LayerEffect]]:
        for layer in layers:
            self.asked += len(harmful) + len(harmless)
            yield (
                layer,
                LayerEffect(
                    self.refusal[layer, list(harmful)].tolist(),
                    self.kl[layer, list(harmless)].tolist(),
                ),
            )

    def by_the_rule(self) -> int:
        rows = zip(self.refusal.tolist(), self.kl.tolist(), strict=True)
        return best_layer([LayerEffect(*row).score(i) for i, row in enumerate(rows)])[0]


def planted(seed: int, gentle: float = 0.03) -> Planted:
    """Twelve layers: as prompts differ in how much they are refused, so do layers, less."""
    rng = np.random.default_rng(seed)
    of_layers, of_prompts = rng.normal(0, 3, (12, 1)), rng.normal(0, 4, (1, 32))
    refusal = of_layers + of_prompts + rng.normal(0, 1, (12, 32))
    return Planted(refusal, rng.gamma(2, gentle * rng.uniform(0.5, 4, (12, 1)) / 2, (12, 32)))


def test_the_race_chooses_what_the_rule_does_with_less_work() -> None:
    work = []
    for seed in range(30):
        layers = planted(seed)
        scores = _race(range(12), [32, 32], layers, {}, lambda _: None)
        assert best_layer([s for s in scores if s.n is None])[0] == layers.by_the_rule(), seed
        assert [s.layer for s in scores] == list(range(12))
        assert all(s.n in (8, 16, None) for s in scores)
        work.append(layers.asked / (12 * 64))
    assert np.mean(work) < 0.6


def test_without_a_gentle_layer_all_are_scored_on_all_prompts() -> None:
    layers = planted(0, gentle=3.0)
    scores = _race(range(12), [32, 32], layers, {}, lambda _: None)
    assert [s.n for s in scores] == [None] * 12
    assert layers.asked == 12 * 64


def test_a_layer_that_only_seemed_gentle_brings_the_others_back() -> None:
    """One layer keeps KL low on the first 16 prompts of the race and not on the others."""
    layers = planted(1, gentle=3.0)
    late = race_order(32)[16:]
    layers.kl[5], layers.refusal[5] = 0.01, layers.refusal.min() - 1
    layers.kl[5, late] = 9.0
    scores = _race(range(12), [32, 32], layers, {}, lambda _: None)
    assert [s.n for s in scores] == [None] * 12
    assert best_layer(scores)[0] == layers.by_the_rule()


def test_an_interrupted_race_goes_on_and_ends_alike() -> None:
    whole = _race(range(12), [32, 32], planted(2), {}, lambda _: None)
    every = planted(2)
    kept: list[dict[int, LayerEffect]] = []

    def keep(found: Mapping[int, LayerEffect]) -> None:
        kept.append({i: LayerEffect([*e.refusal], [*e.kl]) for i, e in found.items()})

    _race(range(12), [32, 32], every, {}, keep)
    for known in kept[:: len(kept) // 6]:
        again = planted(2)
        assert _race(range(12), [32, 32], again, known, lambda _: None) == whole
        assert again.asked < every.asked


def test_a_side_with_fewer_prompts_is_exhausted_first() -> None:
    layers = planted(3)
    scores = _race(range(12), [10, 32], layers, {}, lambda _: None)
    best = best_layer([s for s in scores if s.n is None])[0]
    effect = LayerEffect(layers.refusal[best, :10].tolist(), layers.kl[best].tolist())
    assert next(s for s in scores if s.layer == best) == pytest.approx(effect.score(best))


def test_what_is_surely_worse_or_not_gentle_leaves() -> None:
    steady = [0.1, -0.1, 0.1, -0.1]
    effects = {
        0: LayerEffect([x - 5 for x in steady], [0.01, 0.02, 0.01, 0.02]),
        1: LayerEffect([x + 5 for x in steady], [0.01, 0.02, 0.01, 0.02]),  # refuses more
        2: LayerEffect([x - 9 for x in steady], [0.5, 0.6, 0.5, 0.6]),  # not gentle
        3: LayerEffect([x - 9 for x in steady], [0.0, 0.3, 0.0, 0.1]),  # who knows
    }
    assert in_the_race(effects) == [0, 3]
