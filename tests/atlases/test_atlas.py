"""The numbers behind the report."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.spatial.distance import pdist, squareform
from scipy.stats import spearmanr
from sklearn.decomposition import PCA

from somatlas import SOM
from somatlas.atlases import (
    describe_neurons,
    geometry_at,
    in_one_frame,
    map_errors,
    over_refusal,
    places_on_sd,
    plane,
    relations,
    space,
    stability,
)
from somatlas.atlases.neurons import category_information

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
    assert category_information(np.array([0, 1, 0]), ["", "", ""], ["", "", ""], 0) is None


def test_categories_are_shuffled_within_forms_where_prompts_have_one() -> None:
    forms = ["question"] * 20 + ["order"] * 20
    bmus, categories = np.repeat([0, 1], 20), list("abcde") * 8
    by_form, freely = (category_information(bmus, categories, f, 0) for f in (forms, [""] * 40))
    assert by_form is not None
    assert freely is not None
    assert (by_form["shuffled"], freely["shuffled"]) == ("by form", "freely")
    assert by_form["bits"] == freely["bits"] == pytest.approx(0)
    assert by_form["chance"] == pytest.approx(0)  # neurons are the forms: no shuffle changes it
    assert freely["chance"] > 0.02


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


@pytest.mark.parametrize(("grid", "topology"), [((2, 3), "hexagonal"), ((1, 5), "rectangular")])
def test_the_chance_level_is_that_of_every_permutation_of_the_grid(
    grid: tuple[int, int], topology: str
) -> None:
    X = RNG.normal(size=(60, 3))
    som = SOM(grid=grid, topology=topology, iterations=300).fit(X)  # type: ignore[arg-type]
    found = map_errors(som, X)
    places, m = som.coordinates(), som.n_neurons
    nearest = squareform(pdist(np.concatenate([X, som.weights_])))[: len(X), len(X) :].argsort(1)
    reach = 1.01 if topology == "hexagonal" else 1.42
    errors, correlations = [], []
    for order in itertools.permutations(range(m)):
        own = places[list(order)]
        apart = np.linalg.norm(own[nearest[:, 0]] - own[nearest[:, 1]], axis=1) > reach
        errors.append(apart.mean())
        correlations.append(spearmanr(pdist(own).round(6), pdist(som.weights_)).statistic)
    assert found["topographic"] == pytest.approx(errors[0])  # the identity comes first
    assert found["rank_correlation"] == pytest.approx(correlations[0])
    for name, every in (("topographic", errors), ("rank_correlation", correlations)):
        chance = found["chance"][name]
        assert chance["mean"] == pytest.approx(np.mean(every), abs=0.04)
        assert chance["low"] == pytest.approx(np.quantile(every, 0.025), abs=0.08)
        assert chance["high"] == pytest.approx(np.quantile(every, 0.975), abs=0.08)
    # Every pair of neurons is as likely as any other to be neighbours.
    near = squareform(pdist(places)) < reach
    share = (near.sum() - m) / (m * (m - 1))
    assert found["chance"]["topographic"]["mean"] == pytest.approx(1 - share, abs=0.04)


def test_a_map_laid_out_on_its_grid_is_ordered_and_a_shuffled_one_is_not() -> None:
    som = SOM(grid=(4, 4))
    sheet = som.coordinates() @ RNG.normal(size=(2, 20))
    X = sheet[RNG.integers(16, size=200)] + 0.3 * RNG.normal(size=(200, 20))
    som.weights_ = sheet
    found = map_errors(som, X)
    assert found["ordered"] is True
    assert found["rank_correlation"] > 0.8 > found["chance"]["rank_correlation"]["high"]
    som.weights_ = sheet[RNG.permutation(16)]
    assert map_errors(som, X)["ordered"] is False
    assert map_errors(som, X) == map_errors(som, X)


def test_the_papers_width_orders_no_map_where_the_default_does() -> None:
    X = RNG.normal(size=(300, 40)) * np.linspace(3, 0.3, 40)
    narrow = [map_errors(SOM(sigma=0.33, seed=s).fit(X), X)["ordered"] for s in range(3)]
    default = [map_errors(SOM(seed=s).fit(X), X)["ordered"] for s in range(3)]
    assert not any(narrow)
    assert all(default)


def test_maps_of_one_or_two_neurons_or_of_equal_ones_have_no_order() -> None:
    X = RNG.normal(size=(20, 3))
    single = map_errors(SOM(grid=(1, 1), iterations=50).fit(X), X)
    assert (single["topographic"], single["chance"], single["ordered"]) == (0, None, False)
    assert not map_errors(SOM(grid=(1, 2), iterations=50).fit(X), X)["ordered"]
    equal = SOM(grid=(2, 3))
    equal.weights_ = np.zeros((6, 3))
    found = map_errors(equal, X)
    assert found["rank_correlation"] is None
    assert not found["ordered"]


def test_arrows_in_the_plane_end_at_the_neurons_and_sd_at_the_harmful_mean() -> None:
    harmful, harmless = RNG.normal(size=(30, 9)) + 3, RNG.normal(size=(20, 9))
    neurons, centre = harmful[:4], harmless.mean(axis=0)
    found = plane(harmful, harmless, neurons - centre, harmful.mean(axis=0) - centre)
    reference = PCA(2).fit(np.concatenate([harmful, harmless]))
    np.testing.assert_allclose(
        np.abs(found["ends"]), np.abs(reference.transform(neurons)), atol=1e-3
    )
    np.testing.assert_allclose(found["ends"], found["harmful"][:4])
    assert found["single"] == pytest.approx(found["centroids"]["harmful"])
    assert found["variance"] == pytest.approx(reference.explained_variance_ratio_)


def test_centroids_are_those_of_all_where_not_all_are_drawn() -> None:
    harmful, harmless = RNG.normal(size=(900, 3)), RNG.normal(size=(500, 3)) + 2
    found = plane(harmful, harmless, harmful[:1], harmful[0])
    assert np.shape(found["harmful"]) == np.shape(found["harmless"]) == (400, 2)
    own = np.subtract(found["centroids"]["harmful"], found["centroids"]["harmless"])
    far = np.linalg.norm(harmful.mean(axis=0) - harmless.mean(axis=0))
    assert np.linalg.norm(own) == pytest.approx(far, abs=0.05)  # it lies along the first axis


def test_space_has_the_axes_of_the_harmful_cloud() -> None:
    harmful, harmless = RNG.normal(size=(50, 7)) * np.arange(1, 8), RNG.normal(size=(30, 7))
    som = SOM(grid=(2, 3), iterations=200).fit(harmful)
    found = space(harmful, harmless, som.weights_, som.edges())
    reference = PCA(3).fit(harmful)
    for name, rows in (("harmful", harmful), ("harmless", harmless), ("neurons", som.weights_)):
        expected = np.abs(reference.transform(rows))
        np.testing.assert_allclose(np.abs(found[name]), expected, atol=1e-3)
    assert found["edges"] == som.edges().tolist()


def test_relations_need_enough_steps_and_some_variation() -> None:
    steps = [
        {
            "asr": k / 9,
            "compactness": 9 - k,
            "harmless_compactness": (k - 2) ** 2,
            "ratio": None if k == 3 else 1.0 + k,
            "distance": 1.0,
        }
        for k in range(6)
    ]
    found = relations(steps)
    assert found["compactness"] == pytest.approx(-1)
    expected = np.corrcoef([s["asr"] for s in steps], [s["harmless_compactness"] for s in steps])
    assert found["harmless_compactness"] == pytest.approx(expected[0, 1])
    assert found["ratio"] is found["distance"] is None
    assert set(relations(steps[:3]).values()) == {None}


def test_geometry_of_clouds_under_an_ablation() -> None:
    one, other = RNG.normal(size=(12, 6)), RNG.normal(size=(10, 6)) + 4
    found = geometry_at(one, other)
    assert found["distance"] == pytest.approx(np.linalg.norm(one.mean(0) - other.mean(0)))
    assert found["ratio"] == pytest.approx(found["compactness"] / found["harmless_compactness"])
    again = geometry_at(other, one)
    assert found["harmless_compactness"] == again["compactness"]
    assert geometry_at(one, other[:1])["ratio"] is None


def test_steps_in_one_frame_are_classical_scaling_of_them_all() -> None:
    clouds = [(RNG.normal(size=(9, 6)) + 2, RNG.normal(size=(7, 6))) for _ in range(3)]
    found = in_one_frame(clouds)
    places = np.concatenate([x for step in found for x in (step["harmful"], step["harmless"])])
    every = np.concatenate([x for pair in clouds for x in pair])
    # Torgerson's: eigenvectors of the doubly centred squared distances.
    centring = np.eye(len(every)) - 1 / len(every)
    inner = -0.5 * centring @ squareform(pdist(every)) ** 2 @ centring
    values, vectors = np.linalg.eigh(inner)
    expected = vectors[:, ::-1][:, :3] * np.sqrt(values[::-1][:3])
    np.testing.assert_allclose(np.abs(places), np.abs(expected), atol=1e-3)
    assert all(0 < step["stress"] < 1 for step in found)


def test_a_cloud_that_shrinks_and_moves_does_so_in_the_frame() -> None:
    flat = np.zeros((20, 8))
    flat[:, :3] = RNG.normal(size=(20, 3))
    other = flat[::-1] + 5 * np.eye(8)[0]
    first, second = in_one_frame([(flat, other), (0.5 * flat + np.eye(8)[1], other)])
    assert first["stress"] < 1e-3
    spread = [np.linalg.norm(np.std(step["harmful"], axis=0)) for step in (first, second)]
    assert spread[1] == pytest.approx(spread[0] / 2, abs=1e-3)
    np.testing.assert_allclose(first["harmless"], second["harmless"])  # what stays, stays in place
    moved = np.mean(second["harmful"], axis=0) - np.mean(first["harmful"], axis=0)
    whole = np.eye(8)[1] - 0.5 * flat.mean(axis=0)
    assert np.linalg.norm(moved) == pytest.approx(np.linalg.norm(whole), abs=1e-3)


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
