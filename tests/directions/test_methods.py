"""Each method makes the directions that it says, against dense algebra and scikit-learn."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import ArrayLike
from scipy.cluster.vq import kmeans2
from sklearn.decomposition import PCA

from somatlas import InputError, Projection
from somatlas.directions.contract import Context, Contrast
from somatlas.directions.direction_set import DirectionSet
from somatlas.directions.methods import METHODS, built_in_methods, floors, make_method
from somatlas.numerics.geometry import principal_angles, span_basis
from somatlas.runs.settings import Config

N, D = 120, 24


@dataclass(frozen=True)
class Given:
    """What the tests vary: vectors, context, and the two parameters that a run fills."""

    harmful: torch.Tensor
    harmless: torch.Tensor
    categories: list[str]
    single: dict[int, torch.Tensor] = field(default_factory=dict)
    count: int = 6
    seed: int = 0

    @property
    def shifted(self) -> np.ndarray:
        return Contrast(self.harmful, self.harmless).shifted


def made(name: str, given: Given) -> DirectionSet:
    method = make_method(name, {"count": given.count, "seed": given.seed})
    context = Context(given.categories[: len(given.harmful)], given.single, layer=5)
    return method.fit(given.harmful, given.harmless, context=context).directions_


@pytest.fixture(scope="module")
def contrast() -> Given:
    """Three categories of harmful vectors around a common shift from the harmless ones."""
    rng = np.random.default_rng(0)
    categories = [f"c{i % 3}" for i in range(N)]
    centres = 2 * rng.normal(size=(3, D)) + 4 * rng.normal(size=D)
    harmful = torch.from_numpy(centres[np.arange(N) % 3] + rng.normal(size=(N, D))).float()
    harmless = torch.from_numpy(rng.normal(size=(90, D))).float()
    single = {i: torch.randn(D, generator=torch.Generator().manual_seed(i)) for i in (2, 4, 5, 9)}
    single[5] = harmful.mean(0) - harmless.mean(0)
    return Given(harmful, harmless, categories, single)


@pytest.mark.parametrize("name", [n for n in METHODS.built_in if "leace" not in n])
def test_directions_are_finite_distinct_and_repeatable(name: str, contrast: Given) -> None:
    one, again = made(name, contrast), made(name, contrast)
    assert torch.equal(one.vectors, again.vectors)
    assert one.vectors.shape[1] == D
    assert len(one) <= (16 if name == "som" else contrast.count)  # a map has its grid's
    assert len(one.neurons) == len(one.hits) == len(one)
    Projection(one.vectors)


@pytest.mark.parametrize("name", [n for n, c in built_in_methods().items() if c.is_drawn])
def test_what_is_drawn_is_drawn_by_the_seed(name: str, contrast: Given) -> None:
    other = made(name, replace(contrast, seed=1))
    assert not torch.equal(other.vectors[:3], made(name, contrast).vectors[:3])


def test_methods_say_of_themselves_what_settings_and_pages_ask() -> None:
    methods = built_in_methods()
    assert all(cls.name == name for name, cls in methods.items())
    drawn = {"som", "points", "shifted", "partition", "random", "covariance", "kmeans"}
    assert {name for name, cls in methods.items() if cls.is_drawn} == drawn
    assert list(floors()) == ["points", "shifted", "partition"]
    assert {name for name, cls in methods.items() if cls.makes_one} == {"sd", "leace-binary"}
    assert {name for name, cls in methods.items() if cls.makes_map} == {"som"}
    assert floors(["som", "gone", "shifted"]) == {"shifted": methods["shifted"].summary}


def test_points_are_harmful_representations_minus_the_mean_none_twice(contrast: Given) -> None:
    rows = (contrast.harmful.double() - contrast.harmless.double().mean(0)).float()
    found = made("points", contrast).vectors
    places = [int((rows == vector).all(dim=1).nonzero()) for vector in found]
    assert len(set(places)) == contrast.count
    every = made("points", replace(contrast, count=2 * N)).vectors
    assert torch.equal(every.sort(dim=0).values, rows.sort(dim=0).values)


def test_shifted_has_the_mean_and_the_covariance_of_the_cloud(contrast: Given) -> None:
    """Each moment of 40,000 draws within five standard errors of numpy's of the cloud."""
    n = 40_000
    drawn = made("shifted", replace(contrast, count=n)).vectors.double().numpy()
    cloud = contrast.harmful.double().numpy()
    mean = cloud.mean(0) - contrast.harmless.double().numpy().mean(0)
    covariance = np.cov(cloud, rowvar=False)
    variances = np.diag(covariance)
    assert (np.abs(drawn.mean(0) - mean) < 5 * np.sqrt(variances / n)).all()
    error = np.sqrt((np.outer(variances, variances) + covariance**2) / n)  # of a Gaussian's
    assert (np.abs(np.cov(drawn, rowvar=False) - covariance) < 5 * error).all()


@pytest.mark.parametrize("count", [6, 7, N, 2 * N])
def test_a_random_partition_has_parts_alike_in_size_that_average_to_sd(
    count: int, contrast: Given
) -> None:
    found = made("partition", replace(contrast, count=count))
    assert len(found) == min(count, N)
    assert int(found.hits.sum()) == N
    assert int(found.hits.max() - found.hits.min()) <= 1
    average = (found.hits[:, None] * found.vectors.double()).sum(0) / N
    mean = contrast.harmful.double().mean(0) - contrast.harmless.double().mean(0)
    torch.testing.assert_close(average, mean, atol=1e-5, rtol=0)
    if count == N:  # each part is one prompt
        points = made("points", replace(contrast, count=N)).vectors
        torch.testing.assert_close(found.vectors.sort(0).values, points.sort(0).values)


def test_sd_is_the_mean_difference(contrast: Given) -> None:
    assert torch.equal(made("sd", contrast).vectors[0], contrast.single[5])


def test_the_nearest_layers_come_first(contrast: Given) -> None:
    vectors = made("layers", contrast).vectors
    for row, layer in zip(vectors, (5, 4, 2, 9), strict=True):
        assert torch.equal(row, contrast.single[layer])


def test_principal_axes_are_those_of_the_uncentred_cloud(contrast: Given) -> None:
    """PCA of the cloud and its mirror image has mean zero: the same axes."""
    shifted = contrast.shifted
    reference = PCA(6).fit(np.concatenate([shifted, -shifted])).components_
    axes = made("pca", contrast).vectors.double().numpy()
    np.testing.assert_allclose(np.abs((axes * reference).sum(axis=1)), 1, atol=1e-5)


def test_random_covariance_directions_lie_in_the_span_of_the_data(contrast: Given) -> None:
    flat = contrast.harmful.clone()
    flat[:, 7:] = 0
    vectors = made("covariance", replace(contrast, harmful=flat)).vectors
    assert float(vectors[:, 7:].abs().max()) < 1e-6


def widest_angle(found: DirectionSet, other: ArrayLike) -> float:
    """The greatest principal angle between the spans, in degrees."""
    return float(principal_angles(span_basis(found.vectors.numpy()), span_basis(other)).max())


def test_kmeans_finds_the_centres_of_clusters_most_prompts_first(contrast: Given) -> None:
    found = made("kmeans", replace(contrast, count=3))
    assert sorted(found.hits.tolist(), reverse=True) == found.hits.tolist()
    assert int(found.hits.sum()) == N
    means = torch.stack([contrast.harmful[i::3].mean(0) for i in range(3)])
    true = (means - contrast.harmless.mean(0)).double().numpy()
    assert widest_angle(found, true) < 10


def test_leace_hides_the_categories_from_their_means(contrast: Given) -> None:
    pytest.importorskip("concept_erasure")
    found = made("leace", contrast)
    assert len(found) == 3
    means = [contrast.harmful[i::3].mean(0) for i in range(3)]
    differences = torch.stack([m - contrast.harmless.mean(0) for m in means]).double()
    assert widest_angle(found, differences.numpy()) < 1


def test_binary_leace_is_the_closed_form_of_one_label_whose_span_is_sd(contrast: Given) -> None:
    """P = I - s (S^-1 s)^T / (s^T S^-1 s), s the covariance of vectors and label, S of vectors."""
    concept_erasure = pytest.importorskip("concept_erasure")
    both = torch.cat([contrast.harmful, contrast.harmless]).double().numpy()
    label = np.repeat([1.0, 0.0], [len(contrast.harmful), len(contrast.harmless)])
    s = (both - both.mean(0)).T @ (label - label.mean()) / (len(both) - 1)
    read = np.linalg.solve(np.cov(both, rowvar=False), s)
    closed = np.eye(D) - np.outer(s, read) / (s @ read)
    theirs = concept_erasure.LeaceEraser.fit(
        torch.from_numpy(both), torch.from_numpy(label)[:, None], shrinkage=False
    )
    np.testing.assert_allclose(theirs.P.numpy(), closed, atol=1e-8)
    found = made("leace-binary", contrast)
    assert len(found) == 1
    written = np.linalg.svd(np.eye(D) - closed)[0][:, :1].T  # what the closed form takes away
    assert widest_angle(found, written) < 1e-3
    assert widest_angle(found, contrast.single[5][None]) < 1e-3


@pytest.mark.parametrize("name", ["leace", "leace-binary"])
def test_leace_without_its_package(
    name: str, contrast: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "concept_erasure", None)
    with pytest.raises(InputError, match=rf"method '{name}' needs .* install 'somatlas\[leace\]'"):
        made(name, contrast)


def test_a_draw_is_the_maps_alone_and_only_of_what_is_drawn() -> None:
    drawn = Config.merged({"method": "points", "draw": 3, "seed": 4})
    assert (drawn.seed, drawn.map_seed, Config().map_seed) == (4, 7, 0)
    assert "draw" not in drawn.settings_until("layers")
    assert drawn.settings_until("map")["draw"] == 3
    with pytest.raises(InputError, match=r"method 'pca' draws nothing.*leave out --draw"):
        Config.merged({"method": "pca", "draw": 1})


@pytest.mark.parametrize("name", ["sd", "leace-binary"])
def test_a_method_of_one_direction_takes_k_of_one(name: str) -> None:
    with pytest.raises(InputError, match=r"makes one direction, of which k = 3.*lower --k to 1"):
        Config.merged({"method": name})
    assert Config.merged({"method": name, "k": 1}).k == 1
    assert Config.merged({"method": name, "ids": (0,)}).ids == (0,)


def test_empty_clusters_are_no_news(contrast: Given) -> None:
    """Of three different prompts there are no eight clusters, and scipy would say so."""
    few = replace(contrast, harmful=contrast.harmful[:3].repeat(4, 1), count=8)
    with pytest.warns(UserWarning, match="empty"), np.errstate(invalid="ignore"):
        kmeans2(few.shifted, 8, iter=100, minit="++", seed=np.random.default_rng(0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(made("kmeans", few)) == 3


def test_scikit_learn_clones_what_has_parameters() -> None:
    from sklearn.base import clone

    for cls in built_in_methods().values():
        method = cls()
        if "seed" in method.get_params():
            method.set_params(seed=7)
        copy = clone(method)
        assert type(copy) is cls
        assert copy is not method
        assert copy.get_params() == method.get_params()
    with pytest.raises(InputError, match=r"no parameter 'colour': it has count, seed"):
        METHODS.get("kmeans")().set_params(colour=1)


def test_a_context_that_is_needed_is_asked_for(contrast: Given) -> None:
    for name, needed in (("layers", "mean differences"), ("leace", "categories")):
        if name == "leace":
            pytest.importorskip("concept_erasure")
        with pytest.raises(InputError, match=f"method '{name}' needs the {needed}"):
            make_method(name, {}).fit(contrast.harmful, contrast.harmless)
    with pytest.raises(InputError, match="2 categories of 120 harmful"):
        make_method("sd", {}).fit(
            contrast.harmful, contrast.harmless, context=Context(categories=["a", "b"])
        )


def test_slices_and_lists_of_ranks_are_sets_with_the_same_origin(contrast: Given) -> None:
    found = made("kmeans", contrast)
    assert torch.equal(found[:2].vectors, found.vectors[:2])
    for ranks in ([3, 0], np.array([3, 0]), torch.tensor([3, 0]), (3, 0)):
        assert torch.equal(found[ranks].hits, found.hits[[3, 0]])
    assert [int(one.hits) for one in found] == found.hits.tolist()
    assert found[1].origin == found.origin
    assert torch.equal(found[2:].single.vectors[0], contrast.single[5])
    for wrong, said in (
        ([9], "there is no direction 9: ranks go from 0 to 5"),
        ([1, 1], "twice"),
        ([True] * 6, "mask"),
        (found.hits > 3, "mask"),
        (["a"], "whole numbers"),
    ):
        with pytest.raises(InputError, match=said):
            found[wrong]  # type: ignore[index]


def test_a_file_keeps_its_origin_and_old_ones_load(contrast: Given, tmp_path: Path) -> None:
    found = made("pca", contrast)
    origin = replace(found.origin, model="org/net")
    replace(found, origin=origin).save(tmp_path / "d.safetensors", {"ranks": "3 0"})
    back = DirectionSet.load(tmp_path / "d.safetensors").origin
    assert (back.method, back.model, back.layer) == ("pca", "org/net", 5)
    assert back.facts == {"ranks": "3 0"}
    with pytest.raises(InputError, match=r"not known: fit a method, or load"):
        _ = DirectionSet.load(tmp_path / "d.safetensors").single
    DirectionSet.of_vectors(found.vectors).save(tmp_path / "old.safetensors")
    assert DirectionSet.load(tmp_path / "old.safetensors").origin.method == ""


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"method": "umap"}, r"setting 'method' cannot be 'umap': there is no method 'umap': it"),
        ({"method_settings": "colour=red"}, r"method 'som' has no setting 'colour': it has none"),
        ({"sampler": "grid"}, r"no sampler 'grid': it must be one of surrogate, parzen, random"),
        ({"sampler_settings": {"a": 1}}, r"has no meaning without --sampler"),
    ],
)
def test_unknown_names_and_settings_are_one_sentence(settings: dict[str, str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Config.merged(settings)
