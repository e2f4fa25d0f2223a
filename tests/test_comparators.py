"""Each method makes the directions that it says, against dense algebra and scikit-learn."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.cluster.vq import kmeans2
from sklearn.decomposition import PCA

from somatlas import InputError, Projection
from somatlas.comparators import METHODS, Contrast
from somatlas.geometry import principal_angles

N, D = 120, 24


@pytest.fixture(scope="module")
def contrast() -> Contrast:
    """Three categories of harmful vectors around a common shift from the harmless ones."""
    rng = np.random.default_rng(0)
    categories = [f"c{i % 3}" for i in range(N)]
    centres = 2 * rng.normal(size=(3, D)) + 4 * rng.normal(size=D)
    harmful = torch.from_numpy(centres[np.arange(N) % 3] + rng.normal(size=(N, D))).float()
    harmless = torch.from_numpy(rng.normal(size=(90, D))).float()
    single = {i: torch.randn(D, generator=torch.Generator().manual_seed(i)) for i in (2, 4, 5, 9)}
    single[5] = harmful.mean(0) - harmless.mean(0)
    return Contrast(harmful, harmless, categories, single, layer=5, count=6, seed=0)


@pytest.mark.parametrize("name", [n for n in METHODS if n != "leace"])
def test_directions_are_finite_distinct_and_repeatable(name: str, contrast: Contrast) -> None:
    one, again = METHODS[name](contrast), METHODS[name](contrast)
    assert torch.equal(one.vectors, again.vectors)
    assert one.vectors.shape[1] == D
    assert len(one) <= contrast.count
    assert len(one.neurons) == len(one.hits) == len(one)
    Projection(one.vectors)


@pytest.mark.parametrize("name", ["random", "covariance", "kmeans"])
def test_what_is_drawn_is_drawn_by_the_seed(name: str, contrast: Contrast) -> None:
    other = METHODS[name](replace(contrast, seed=1))
    assert not torch.equal(other.vectors[:3], METHODS[name](contrast).vectors[:3])


def test_sd_is_the_mean_difference(contrast: Contrast) -> None:
    assert torch.equal(METHODS["sd"](contrast).vectors[0], contrast.single[5])


def test_the_nearest_layers_come_first(contrast: Contrast) -> None:
    vectors = METHODS["layers"](contrast).vectors
    for row, layer in zip(vectors, (5, 4, 2, 9), strict=True):
        assert torch.equal(row, contrast.single[layer])


def test_principal_axes_are_those_of_the_uncentred_cloud(contrast: Contrast) -> None:
    """PCA of the cloud and its mirror image has mean zero: the same axes."""
    shifted = contrast.shifted
    reference = PCA(6).fit(np.concatenate([shifted, -shifted])).components_
    axes = METHODS["pca"](contrast).vectors.double().numpy()
    np.testing.assert_allclose(np.abs((axes * reference).sum(axis=1)), 1, atol=1e-5)


def test_random_covariance_directions_lie_in_the_span_of_the_data(contrast: Contrast) -> None:
    flat = contrast.harmful.clone()
    flat[:, 7:] = 0
    vectors = METHODS["covariance"](replace(contrast, harmful=flat)).vectors
    assert float(vectors[:, 7:].abs().max()) < 1e-6


def test_kmeans_finds_the_centres_of_clusters_most_prompts_first(contrast: Contrast) -> None:
    found = METHODS["kmeans"](replace(contrast, count=3))
    assert sorted(found.hits.tolist(), reverse=True) == found.hits.tolist()
    assert int(found.hits.sum()) == N
    means = torch.stack([contrast.harmful[i::3].mean(0) for i in range(3)])
    true = (means - contrast.harmless.mean(0)).double().numpy()
    assert principal_angles(found.vectors.double().numpy(), true).max() < 10


def test_leace_hides_the_categories_from_their_means(contrast: Contrast) -> None:
    pytest.importorskip("concept_erasure")
    found = METHODS["leace"](contrast)
    assert len(found) == 3
    means = [contrast.harmful[i::3].mean(0) for i in range(3)]
    differences = torch.stack([m - contrast.harmless.mean(0) for m in means]).double()
    assert principal_angles(found.vectors.double().numpy(), differences.numpy()).max() < 1


def test_leace_without_its_package(contrast: Contrast, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "concept_erasure", None)
    with pytest.raises(InputError, match=r"install 'somatlas\[leace\]'"):
        METHODS["leace"](contrast)


def test_empty_clusters_are_no_news(contrast: Contrast) -> None:
    """Of three different prompts there are no eight clusters, and scipy would say so."""
    few = replace(contrast, harmful=contrast.harmful[:3].repeat(4, 1), count=8)
    with pytest.warns(UserWarning, match="empty"), np.errstate(invalid="ignore"):
        kmeans2(few.shifted, 8, iter=100, minit="++", seed=np.random.default_rng(0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(METHODS["kmeans"](few)) == 3
