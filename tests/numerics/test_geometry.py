"""Geometry against scikit-learn and scipy, and what must hold for any input."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import pdist
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score, mutual_info_score

from somatlas import Projection
from somatlas.numerics.geometry import (
    adjusted_rand_index,
    centroid_distance,
    compactness,
    cosine_matrix,
    matched_cosines,
    mutual_information,
    permutation_test,
    principal_angles,
    principal_components,
    span_basis,
    stress,
)

RNG = np.random.default_rng(0)
seeds = st.integers(0, 2**32 - 1)
labels = st.integers(2, 40).flatmap(
    lambda n: st.tuples(*[st.lists(st.integers(0, 4), min_size=n, max_size=n)] * 2)
)


@given(labels)
def test_partitions_compare_as_scikit_learn_says(pair: tuple[list[int], list[int]]) -> None:
    one, other = pair
    assert adjusted_rand_index(one, other) == pytest.approx(adjusted_rand_score(one, other))
    nats = mutual_info_score(one, other)
    assert mutual_information(one, other) == pytest.approx(nats / np.log(2), abs=1e-12)


def angles(one: ArrayLike, other: ArrayLike) -> NDArray[np.float64]:
    return principal_angles(span_basis(one), span_basis(other))


@settings(max_examples=30)
@given(seeds, st.integers(1, 5), st.integers(1, 5))
def test_principal_angles_are_the_singular_values_of_the_bases_products(
    seed: int, k: int, m: int
) -> None:
    """Bjorck and Golub 1973; a direction that is named twice counts once."""
    rng = np.random.default_rng(seed)
    one, other = rng.normal(size=(k, 12)), rng.normal(size=(m, 12))
    cosines = np.linalg.svd(np.linalg.qr(one.T)[0].T @ np.linalg.qr(other.T)[0])[1]
    expected = np.degrees(np.arccos(np.clip(cosines, -1, 1)))
    np.testing.assert_allclose(angles(one, other), expected, atol=1e-5)
    twice = np.concatenate([one, -2 * one[:1]])
    np.testing.assert_allclose(angles(twice, other), expected, atol=1e-5)


def test_equal_spans_have_no_angle_whatever_their_directions() -> None:
    one = RNG.normal(size=(3, 20))
    other = RNG.normal(size=(3, 3)) @ one
    assert angles(one, other).max() < 1e-4
    assert angles([[1, 0, 0]], [[0, 2, 0]]).tolist() == [90.0]


def test_components_equal_scikit_learns_up_to_sign() -> None:
    X = RNG.normal(size=(50, 8)) * np.arange(1, 9)
    reference = PCA(3).fit(X)
    mean, components, shares = principal_components(X, 3)
    np.testing.assert_allclose(mean, reference.mean_)
    np.testing.assert_allclose(np.abs(components), np.abs(reference.components_), atol=1e-9)
    np.testing.assert_allclose(shares, reference.explained_variance_ratio_)


def test_fewer_dimensions_than_components_leave_zeros() -> None:
    _, components, shares = principal_components(np.outer(np.arange(5.0), [1, 0, 0]), 3)
    assert np.allclose(components[1:], 0)
    assert shares[0] == pytest.approx(1)


def test_scaling_keeps_distances_where_three_dimensions_hold_them() -> None:
    flat = RNG.normal(size=(30, 3)) @ RNG.normal(size=(3, 40))
    mean, axes, _ = principal_components(flat, 3)
    places = (flat - mean) @ axes.T
    np.testing.assert_allclose(pdist(places), pdist(flat), rtol=1e-9)
    assert stress(flat, places) < 1e-9
    assert stress(RNG.normal(size=(30, 40)), places) > 0.1


@settings(max_examples=30)
@given(seeds)
def test_matching_is_the_best_of_all(seed: int) -> None:
    rng = np.random.default_rng(seed)
    one, other = rng.normal(size=(4, 6)), rng.normal(size=(4, 6))
    matched = matched_cosines(one, other)
    cosines = np.abs(cosine_matrix(np.concatenate([one, other]))[:4, 4:])
    best = max(sum(cosines[range(4), p]) for p in itertools.permutations(range(4)))
    assert matched.sum() == pytest.approx(best)


def test_a_shuffled_set_matches_itself_whatever_the_signs() -> None:
    one = RNG.normal(size=(5, 9))
    factors = np.array([3.0, -3, 1, -1, 2])[:, None]
    np.testing.assert_allclose(matched_cosines(one, factors * one[[4, 2, 0, 1, 3]]), 1.0)


@settings(max_examples=30)
@given(seeds, st.floats(0.1, 10))
def test_distances_scale_and_do_not_move(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    one, other, shift = rng.normal(size=(9, 4)), rng.normal(size=(7, 4)), rng.normal(size=4)
    assert compactness(scale * one + shift) == pytest.approx(scale * compactness(one))
    moved = centroid_distance(scale * one + shift, scale * other + shift)
    assert moved == pytest.approx(scale * centroid_distance(one, other))


def test_ablating_what_tells_clusters_apart_brings_them_together() -> None:
    one, other = RNG.normal(size=(40, 10)) + 5, RNG.normal(size=(40, 10))
    difference = one.mean(axis=0) - other.mean(axis=0)
    P = Projection(difference[None]).matrix().numpy()
    assert centroid_distance(one @ P, other @ P) < 1e-9


def test_a_shuffle_within_strata_equals_the_enumeration_of_all() -> None:
    neurons = np.array([0, 0, 1, 1, 0, 1, 1, 2])
    categories = np.array(["a", "b", "a", "b", "a", "a", "b", "b"])
    strata = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    nats = [
        mutual_info_score(neurons, [*one, *other])
        for one in itertools.permutations(categories[:4])
        for other in itertools.permutations(categories[4:])
    ]
    observed = mutual_info_score(neurons, categories)
    expected = np.mean(np.array(nats) >= observed - 1e-12)
    bits, chance, p = permutation_test(neurons, categories, strata=strata, permutations=4000)
    assert bits == pytest.approx(observed / np.log(2))
    assert chance == pytest.approx(np.mean(nats) / np.log(2), abs=0.01)
    assert p == pytest.approx(expected, abs=0.03)
    free = permutation_test(neurons, categories, permutations=4000)
    assert abs(free[1] - chance) > 0.01  # another null than this one, at ten standard errors


def test_labels_that_follow_the_strata_alone_are_no_more_than_chance_within_them() -> None:
    """Every category in every form as often, and neurons that are forms: a free shuffle breaks the
    balance that the observed order has, so that it always tells more."""
    form = np.repeat(np.arange(4), 20)
    category = np.tile(np.arange(5), 16)
    assert permutation_test(form, category, permutations=200)[1] > 0.05
    assert permutation_test(form, category, strata=form, permutations=200) == pytest.approx(
        (0, 0, 1)
    )


def test_chance_is_told_from_dependence() -> None:
    a = RNG.integers(0, 4, size=200)
    information, chance, p = permutation_test(a, a, permutations=200)
    assert information > 1.9 > 0.1 > chance
    assert p < 0.01
    assert permutation_test(a, RNG.integers(0, 4, size=200), permutations=200)[2] > 0.01
