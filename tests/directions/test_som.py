"""The map agrees with MiniSom, and means what the method says it means."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from minisom import MiniSom

from somatlas import SOM, DirectionSet, InputError
from somatlas.directions.som import SIGMA, fit_all
from somatlas.files import read_tensors, write_tensors
from somatlas.runs.settings import Config


def samples(n: int, d: int, seed: int) -> np.ndarray:
    """Clustered float32 data, as representations are."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(5, d)) * 3
    return (centres[rng.integers(5, size=n)] + rng.normal(size=(n, d))).astype(np.float32)


PAPER_SIGMA = 0.33


def minisom(
    X: np.ndarray, grid: tuple[int, int], topology: str, seed: int, steps: int, sigma: float
) -> MiniSom:
    """A MiniSom made and trained as the paper's code does it."""
    som = MiniSom(
        *grid, X.shape[1], sigma=sigma, learning_rate=0.01, random_seed=seed, topology=topology
    )
    som.random_weights_init(X)
    som.train_random(X, steps)
    return som


@pytest.mark.parametrize("grid", [(4, 4), (3, 5)])
@pytest.mark.parametrize("topology", ["hexagonal", "rectangular"])
@pytest.mark.parametrize("sigma", [PAPER_SIGMA, SIGMA])
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("d", [64, 576])
def test_weights_hits_and_ranks_equal_minisoms(
    grid: tuple[int, int], topology: str, sigma: float, seed: int, d: int
) -> None:
    X = samples(300, d, seed)
    theirs = minisom(X, grid, topology, seed, 2000, sigma)
    ours = SOM(grid=grid, topology=topology, sigma=sigma, iterations=2000, seed=seed).fit(X)

    expected = theirs.get_weights().reshape(-1, d)
    np.testing.assert_allclose(ours.weights_, expected, rtol=0, atol=1e-6 * np.abs(expected).max())
    winners = [x * grid[1] + y for x, y in (theirs.winner(row) for row in X)]
    assert ours.bmus_.tolist() == winners
    assert ours.hits_.tolist() == theirs.activation_response(X).ravel().tolist()
    counts: dict[int, int] = {}
    for w in winners:  # a dict keeps the order of first hits, and sorted keeps it among ties
        counts[w] = counts.get(w, 0) + 1
    ranked = sorted(counts, key=lambda w: counts[w], reverse=True)
    assert DirectionSet.from_som(ours, np.zeros(d)).neurons.tolist() == ranked


def test_a_wide_neighbourhood_agrees_with_minisom_too() -> None:
    X = samples(200, 16, 3)
    theirs = MiniSom(5, 4, 16, sigma=1.5, learning_rate=0.5, random_seed=7, topology="hexagonal")
    theirs.random_weights_init(X)
    theirs.train_random(X, 1000)
    ours = SOM(grid=(5, 4), sigma=1.5, learning_rate=0.5, iterations=1000, seed=7).fit(X)
    np.testing.assert_allclose(ours.weights_, theirs.get_weights().reshape(-1, 16), rtol=1e-6)


@pytest.mark.parametrize(
    ("topology", "grid"), [("hexagonal", (4, 5)), ("rectangular", (4, 4)), ("rectangular", (3, 5))]
)
def test_the_u_matrix_equals_minisoms_scaled_to_its_largest(
    topology: str, grid: tuple[int, int]
) -> None:
    # MiniSom 2.3.6 takes other hexagons for neighbours than its own neighbourhood function does
    # where the number of columns is even, so only odd numbers can agree.
    X = samples(200, 8, 0)
    ours = SOM(grid=grid, topology=topology, iterations=500).fit(X)
    theirs = minisom(X, grid, topology, 0, 500, SIGMA)
    mean_distances = theirs.distance_map(scaling="mean").ravel()
    np.testing.assert_allclose(ours.u_matrix() / ours.u_matrix().max(), mean_distances, rtol=1e-6)


def test_one_neuron_tends_to_the_mean_of_the_data() -> None:
    X = samples(400, 32, 0)
    som = SOM(grid=(1, 1), iterations=40_000).fit(X)
    mean = X.mean(axis=0)
    assert np.linalg.norm(som.weights_[0] - mean) < 0.05 * np.linalg.norm(X - mean, axis=1).mean()
    assert som.u_matrix().tolist() == [0.0]


@pytest.mark.parametrize("topology", ["hexagonal", "rectangular"])
def test_neighbours_on_the_grid_are_one_step_apart(topology: str) -> None:
    distances = np.sqrt(SOM(grid=(4, 5), topology=topology).grid_distances())
    np.testing.assert_allclose(distances[np.triu_indices(20, 1)].min(), 1.0)
    inner = distances[1 * 5 + 2]
    expected = 6 if topology == "hexagonal" else 4
    assert np.isclose(inner, 1.0).sum() == expected


def test_the_grids_lines_join_each_pair_of_neighbours_once() -> None:
    hexagonal, square = (SOM(grid=(4, 5), topology=t) for t in ("hexagonal", "rectangular"))
    gaps = np.linalg.norm(np.diff(hexagonal.coordinates()[hexagonal.edges()], axis=1)[:, 0], axis=1)
    np.testing.assert_allclose(gaps, 1)
    # Lines of 4 have 3 edges each; between two lines every hexagon has two, but for one at the end.
    assert len(hexagonal.edges()) == 5 * 3 + 4 * (2 * 4 - 1)
    assert len(square.edges()) == 5 * 3 + 4 * 4  # no diagonals
    assert len(SOM(grid=(1, 1)).edges()) == 0


def test_the_commands_default_width_is_the_librarys_and_the_recipes_the_papers() -> None:
    assert Config(model="m").sigma == SOM().sigma == SIGMA
    recipes = list((files("somatlas") / "data" / "recipes").iterdir())
    assert len(recipes) == 8
    for recipe in recipes:
        assert tomllib.loads(recipe.read_text())["sigma"] == PAPER_SIGMA


def test_neurons_without_hits_give_no_direction() -> None:
    X = np.repeat(samples(2, 6, 0), 30, axis=0)  # two places for nine neurons
    som = SOM(grid=(3, 3), sigma=1.5, iterations=500).fit(X)
    alive = np.flatnonzero(som.hits_)
    assert 0 < len(alive) <= 2
    assert sorted(DirectionSet.from_som(som, np.zeros(6)).neurons.tolist()) == alive.tolist()


def test_tensors_and_arrays_give_the_same_map() -> None:
    X = samples(100, 8, 0)
    a, b = SOM(iterations=200).fit(X), SOM(iterations=200).fit(torch.from_numpy(X))
    np.testing.assert_array_equal(a.weights_, b.weights_)


def test_another_seed_gives_another_map() -> None:
    X = samples(100, 8, 0)
    a, b = (SOM(iterations=200, seed=seed).fit(X).weights_ for seed in (0, 1))
    assert not np.allclose(a, b)


@settings(max_examples=20, deadline=None)
@given(scale=st.floats(0.01, 100), seed=st.integers(0, 100))
def test_scaling_the_data_scales_the_map(scale: float, seed: int) -> None:
    X = samples(60, 5, seed).astype(np.float64)
    plain = SOM(grid=(2, 3), iterations=100, seed=seed).fit(X)
    scaled = SOM(grid=(2, 3), iterations=100, seed=seed).fit(X * scale)
    np.testing.assert_allclose(scaled.weights_, plain.weights_ * scale, rtol=1e-6, atol=1e-9)


def test_prediction_is_the_nearest_neuron() -> None:
    X = samples(100, 8, 0)
    som = SOM(iterations=200).fit(X)
    gaps = np.linalg.norm(X[:, None].astype(float) - som.weights_, axis=-1)
    np.testing.assert_array_equal(som.predict(X), gaps.argmin(axis=1))


def test_maps_fitted_side_by_side_are_those_fitted_alone() -> None:
    jobs = [(SOM(seed=seed, iterations=300), samples(60, 8, seed)) for seed in range(6)]
    together = fit_all(jobs, threads=3)
    for seed, som in enumerate(together):
        alone = SOM(seed=seed, iterations=300).fit(samples(60, 8, seed))
        np.testing.assert_array_equal(som.weights_, alone.weights_)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.zeros((3, 2)), "more neurons than the 3 samples"),
        (np.zeros((0, 2)), "non-empty"),
        (np.zeros(20), "non-empty"),
        (np.where(np.eye(20, 2) > 0, np.nan, 0.0), "2 of 20 samples hold NaN"),
    ],
)
def test_bad_samples_are_refused(X: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        SOM(grid=(2, 2)).fit(X)


@pytest.mark.parametrize(
    "options",
    [
        {"grid": (0, 3)},
        {"topology": "round"},
        {"sigma": 0.0},
        {"sigma": float("nan")},
        {"learning_rate": 1.5},
        {"iterations": 0},
    ],
)
def test_bad_parameters_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        SOM(**options).fit(samples(20, 4, 0))  # type: ignore[arg-type]


def test_prediction_refuses_vectors_of_another_length() -> None:
    som = SOM(grid=(2, 2), iterations=10).fit(samples(20, 4, 0))
    with pytest.raises(InputError, match="vectors of 4 values"):
        som.predict(samples(3, 5, 0))


def test_scikit_learn_clones_a_map_and_its_contract_holds() -> None:
    from sklearn.base import clone

    X = samples(40, 5, 0)
    som = SOM(grid=(2, 3), iterations=200, seed=3).fit(X)
    copy = clone(som)
    assert copy.get_params() == som.get_params()
    assert not hasattr(copy, "weights_")
    np.testing.assert_array_equal(copy.fit_predict(X), som.labels_)
    distances = np.linalg.norm(X[:, None] - som.weights_[None], axis=2)
    np.testing.assert_allclose(som.transform(X), distances)
    np.testing.assert_array_equal(som.transform(X).argmin(axis=1), som.predict(X))
    assert som.n_features_in_ == 5


def test_what_is_asked_before_fit_is_answered_in_a_sentence(tmp_path: Path) -> None:
    for ask in (
        lambda som: som.predict(np.ones((2, 3))),
        lambda som: som.u_matrix(),
        lambda som: som.save(tmp_path / "m.safetensors"),
        lambda som: DirectionSet.from_som(som, np.ones(3)),
    ):
        with pytest.raises(InputError, match=r"this SOM has no \w+ yet: call fit first"):
            ask(SOM())
    assert not list(tmp_path.iterdir())


def test_neurons_of_a_map_that_sees_its_vectors_scaled_are_no_vectors_of_theirs() -> None:
    som = SOM(grid=(2, 2), scale="standard").fit(samples(40, 5, 0))
    with pytest.raises(InputError, match=r"sees its vectors scaled \(standard\)"):
        DirectionSet.from_som(som, np.ones(5))


def test_a_map_comes_back_from_its_file(tmp_path: Path) -> None:
    X, path = samples(40, 5, 0), tmp_path / "map.safetensors"
    som = SOM(grid=(2, 3), topology="rectangular", sigma=0.7, iterations=200, seed=3).fit(X)
    som.save(path, {"model": "m"})
    back = SOM.load(path)
    assert back.get_params() == som.get_params()
    for name in ("weights_", "hits_", "bmus_", "labels_"):
        np.testing.assert_array_equal(getattr(back, name), getattr(som, name))
    np.testing.assert_array_equal(back.fit(X).weights_, som.weights_)
    tensors, facts = read_tensors(path)
    assert facts["model"] == "m"
    kept = {"grid": "2x3", "topology": "rectangular"}  # all that version 0.1.0 wrote
    write_tensors(path, tensors, kept)
    old = SOM.load(path)
    np.testing.assert_array_equal(old.predict(X), som.bmus_)
    with pytest.raises(InputError, match="sigma must be a number above 0, not None"):
        old.fit(X)
    for wrong in ({**kept, "grid": "3x3"}, {**kept, "grid": "x"}, {"grid": "2x3"}):
        write_tensors(path, tensors, wrong)
        with pytest.raises(InputError, match=r"map\.safetensors"):
            SOM.load(path)
