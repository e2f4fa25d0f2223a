"""The numbers behind the report."""

from __future__ import annotations

import numpy as np
import pytest

from somatlas import SOM
from somatlas.atlas import (
    describe_neurons,
    geometry_at,
    map_errors,
    over_refusal,
    places_on_sd,
    plane,
    relations,
    stability,
)
from somatlas.atlas.neurons import category_information

RNG = np.random.default_rng(0)


def test_neurons_are_described_by_their_own_prompts() -> None:
    vectors = np.array([[0.0, 0], [0.1, 0], [5, 0], [5, 0.3], [5, 0.1]])
    weights = np.array([[0.0, 0], [5, 0], [9, 9]])
    bmus = np.array([0, 0, 1, 1, 1])
    scores = np.array([1.0, np.nan, 2.0, 4.0, np.nan])
    neurons = describe_neurons(vectors, weights, bmus, list("abcde"), list("xyyyx"), scores)
    assert [n["hits"] for n in neurons] == [2, 3, 0]
    assert neurons[1]["typical"] == ["c", "e", "d"]
    assert neurons[1]["categories"]["y"] == {"count": 2, "lift": pytest.approx((2 / 3) / (3 / 5))}
    assert [n["refusal_score"] for n in neurons] == [1.0, 3.0, None]


def test_one_category_has_no_information() -> None:
    assert category_information(np.array([0, 1, 0]), ["", "", ""], 0) is None


def test_quantization_error_is_minisoms() -> None:
    from minisom import MiniSom

    X = RNG.normal(size=(80, 5))
    som = SOM(grid=(3, 4), iterations=500).fit(X)
    theirs = MiniSom(3, 4, 5)
    theirs._weights = som.weights_.reshape(3, 4, 5)
    assert map_errors(som, X)["quantization"] == pytest.approx(theirs.quantization_error(X))


def test_topographic_error_is_that_of_neighbours_on_the_grid() -> None:
    """On a 1x3 line with weights 0, 10, 1 the two nearest of samples near 0.5 are its ends."""
    som = SOM(grid=(1, 3), topology="rectangular")
    som.weights_ = np.array([[0.0], [10.0], [1.0]])
    assert map_errors(som, np.array([[0.4], [0.6]]))["topographic"] == 1.0
    assert map_errors(som, np.array([[0.4], [8.0]]))["topographic"] == 0.5


def test_a_plane_holds_both_clouds_and_arrows_no_longer_than_one() -> None:
    harmful, harmless = RNG.normal(size=(30, 9)) + 3, RNG.normal(size=(20, 9))
    found = plane(harmful, harmless, RNG.normal(size=(4, 9)))
    assert np.shape(found["harmful"]) == (30, 2)
    assert np.linalg.norm(found["directions"], axis=1).max() <= 1
    np.testing.assert_allclose(
        found["centroids"]["harmful"], np.mean(found["harmful"], axis=0), atol=1e-3
    )


def test_relations_need_enough_steps_and_some_variation() -> None:
    steps = [{"asr": k / 9, "compactness": 9 - k, "distance": 1.0} for k in range(6)]
    found = relations(steps)
    assert found["compactness"]["r"] == pytest.approx(-1)  # type: ignore[index]
    assert found["distance"] is None
    assert relations(steps[:3]) == {"compactness": None, "distance": None}


def test_geometry_of_clouds_under_an_ablation() -> None:
    one, other = RNG.normal(size=(12, 6)), RNG.normal(size=(10, 6)) + 4
    found = geometry_at(one, other)
    assert found["distance"] == pytest.approx(np.linalg.norm(one.mean(0) - other.mean(0)))
    assert np.shape(found["harmful"]) == (12, 3)
    assert 0 < found["stress"] < 1


def test_a_method_that_ignores_its_sample_is_perfectly_stable_and_a_random_one_is_not() -> None:
    fixed = RNG.normal(size=(5, 40))
    parts = np.arange(60) % 5

    def same(_rows: np.ndarray, _seed: int) -> tuple[np.ndarray, np.ndarray]:
        return fixed, parts

    def drawn(rows: np.ndarray, seed: int) -> tuple[np.ndarray, None]:
        return np.random.default_rng([seed, *rows]).normal(size=(5, 40)), None

    steady, loose = (stability(m, 60, k=3, repeats=6) for m in (same, drawn))
    for which in ("samples", "seeds"):
        assert steady[which]["largest_angle"]["mean"] < 1e-4
        assert steady[which]["matched_cosine"]["mean"] == pytest.approx(1)
        assert steady[which]["rand"]["mean"] == pytest.approx(1)
        assert loose[which]["matched_cosine"]["mean"] < 0.5
        assert loose[which]["largest_angle"]["mean"] > 60
        assert loose[which]["rand"] is None


def test_a_method_that_draws_at_random_is_as_loose_over_samples_as_over_seeds() -> None:
    """It does not look at its sample: with one seed for all samples it would seem steady."""

    def drawn(_rows: np.ndarray, seed: int) -> tuple[np.ndarray, None]:
        return np.random.default_rng(seed).normal(size=(5, 40)), None

    found = stability(drawn, 60, k=3, repeats=6)
    for which in ("samples", "seeds"):
        assert found[which]["matched_cosine"]["mean"] < 0.5


SINGLE = np.eye(40)[0]


def test_what_repeats_share_is_sd_alone_or_more() -> None:
    """Noise around SD is alike as long as SD is in it; planted directions are alike beyond it."""
    planted = RNG.normal(size=(5, 40))

    def noisy(rows: np.ndarray, seed: int) -> tuple[np.ndarray, None]:
        return 20 * SINGLE + np.random.default_rng([seed, *rows]).normal(size=(5, 40)), None

    def real(rows: np.ndarray, seed: int) -> tuple[np.ndarray, None]:
        noise = np.random.default_rng([seed, *rows]).normal(size=(5, 40))
        return 20 * SINGLE + planted + 0.1 * noise, None

    floor, found = (stability(m, 60, k=3, repeats=6, single=SINGLE) for m in (noisy, real))
    for which in ("samples", "seeds"):
        assert floor[which]["matched_cosine"]["mean"] > 0.9
        assert floor["without_sd"][which]["matched_cosine"]["mean"] < 0.5
        assert found["without_sd"][which]["matched_cosine"]["mean"] > 0.95
        assert found["without_sd"][which]["largest_angle"]["mean"] < 15


def test_stability_is_of_the_directions_chosen_whatever_their_rank() -> None:
    """Three fixed directions among noise, in another order each time."""
    fixed = RNG.normal(size=(3, 40))

    def shuffled(rows: np.ndarray, seed: int) -> tuple[np.ndarray, None]:
        rng = np.random.default_rng([seed, *rows])
        return rng.permutation(np.concatenate([fixed, rng.normal(size=(5, 40))])), None

    first = stability(shuffled, 60, k=3, repeats=8)
    nearest = stability(shuffled, 60, k=3, repeats=8, chosen=-fixed, ranks=[0, 4, 6])
    for which in ("samples", "seeds"):
        assert nearest[which]["matched_cosine"]["mean"] == pytest.approx(1)
        assert nearest[which]["largest_angle"]["mean"] < 1e-4
        assert nearest[which]["rank_cosine"]["mean"] < 0.6
        assert first[which]["matched_cosine"]["mean"] < 0.8
    assert nearest["ranks"] == [0, 4, 6]
    assert nearest["nearest"]


def test_sd_has_nothing_beyond_itself_and_ranks_that_are_not_there_are_not_compared() -> None:
    found = stability(
        lambda _rows, _seed: (SINGLE[None], None), 60, k=2, ranks=[0, 1], repeats=3, single=SINGLE
    )
    assert found["without_sd"] is None
    assert found["samples"]["rank_cosine"] is None
    assert found["samples"]["matched_cosine"]["mean"] == pytest.approx(1)


def test_places_along_the_mean_difference_are_0_and_1_at_the_means() -> None:
    harmful, harmless = RNG.normal(size=7) + 2, RNG.normal(size=7)
    across = RNG.normal(size=7)
    across -= (
        across @ (harmful - harmless) / ((harmful - harmless) ** 2).sum() * (harmful - harmless)
    )
    vectors = np.stack([harmless, harmful, harmless + 5 * across, 2 * harmful - harmless])
    np.testing.assert_allclose(places_on_sd(vectors, harmful, harmless), [0, 1, 0, 2], atol=1e-12)
    assert places_on_sd(vectors, harmless, harmless).tolist() == [0, 0, 0, 0]


def test_over_refusal_is_the_area_under_the_curve_of_scikit_learn() -> None:
    from sklearn.metrics import roc_auc_score

    places = np.round(RNG.normal(size=40), 1)  # with ties
    refused = RNG.random(40) < 0.4
    found = over_refusal(places.tolist(), refused.tolist())
    assert found is not None
    assert found["auc"] == pytest.approx(roc_auc_score(refused, places))
    assert found["place_refused"] == pytest.approx(places[refused].mean())
    assert found["refused"] + found["answered"] == 40


def test_over_refusal_of_none_or_of_one_side() -> None:
    assert over_refusal([], []) is None
    assert over_refusal([0.5, 0.7], [False, False]) == {
        "refused": 0,
        "answered": 2,
        "place_refused": None,
        "place_answered": pytest.approx(0.6),
        "auc": None,
    }
