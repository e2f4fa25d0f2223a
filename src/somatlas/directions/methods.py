"""Methods that the SOM is compared with: each makes a DirectionSet of the same representations.

| method       | directions                                                                     |
|--------------|--------------------------------------------------------------------------------|
| som          | the map's neurons minus the harmless mean (the paper's)                        |
| points       | floor: random harmful representations minus the harmless mean                  |
| shifted      | floor: the mean difference plus Gaussian noise of the harmful covariance       |
| partition    | floor: means of a random partition of the harmful ones, minus the harmless mean |
| random       | isotropic Gaussian: what ablating any directions does                          |
| covariance   | Gaussian with the covariance of the harmful representations, centred           |
| sd           | the mean difference, alone                                                     |
| layers       | the mean differences of the layers nearest to the one that is cut              |
| pca          | principal axes of harmful minus the harmless mean, not centred again           |
| kmeans       | k-means centroids of harmful minus the harmless mean, most prompts first       |
| leace        | the span that LEACE (Belrose et al. 2306.03819) removes to hide the category   |
| leace-binary | the same to hide whether a prompt is harmful: one direction, which is SD       |

Ranks are in the methods' own order of importance; of the random ones it has no meaning. The floors
learn nothing but have what every other method has, the mean difference; `random` and `covariance`
lack it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2
from torch import Tensor

from somatlas.directions.direction_set import DirectionSet, mean_difference
from somatlas.errors import InputError


@dataclass(frozen=True)
class Contrast:
    """What a method may use.

    harmful : (n, d) at the layer that is cut; harmless : (m, d). categories : (n,) of the harmful
    prompts, empty strings where unknown. single : layer -> SD (d,), of every layer kept. count :
    how many directions are wanted.
    """

    harmful: Tensor
    harmless: Tensor
    categories: Sequence[str]
    single: Mapping[int, Tensor]
    layer: int
    count: int
    seed: int

    def sampled(self, rows: NDArray[np.int64], seed: int) -> Contrast:
        """The same with some of the harmful representations, and another seed.

        SD is made of them again at the layer that is cut; the other layers' would need their
        representations, and are left out.
        """
        harmful = self.harmful[torch.from_numpy(rows)]
        return replace(
            self,
            harmful=harmful,
            categories=[self.categories[i] for i in rows.tolist()],
            single={self.layer: mean_difference(harmful, self.harmless)},
            seed=seed,
        )

    @property
    def shifted(self) -> NDArray[np.float64]:
        """(n, d) float64 harmful representations minus the harmless mean."""
        return (self.harmful.double() - self.harmless.double().mean(dim=0)).numpy()


def random_directions(contrast: Contrast) -> DirectionSet:
    """Isotropic: what ablating any k directions does."""
    rng = np.random.default_rng(contrast.seed)
    return _without_hits(rng.normal(size=(contrast.count, contrast.harmful.shape[1])))


def covariance_directions(contrast: Contrast) -> DirectionSet:
    """Random, with the covariance of the harmful representations."""
    rng = np.random.default_rng(contrast.seed)
    centred = contrast.shifted - contrast.shifted.mean(axis=0)
    return _without_hits(_noise(centred, contrast.count, rng))


def harmful_points(contrast: Contrast) -> DirectionSet:
    """Random harmful representations, none twice; all of them where there are fewer than count."""
    rng = np.random.default_rng(contrast.seed)
    return _without_hits(contrast.shifted[rng.permutation(len(contrast.harmful))[: contrast.count]])


def shifted_noise(contrast: Contrast) -> DirectionSet:
    """Draws of the Gaussian that has the harmful cloud's mean, from the harmless one, and its
    covariance."""
    rng = np.random.default_rng(contrast.seed)
    mean = contrast.shifted.mean(axis=0)
    return _without_hits(mean + _noise(contrast.shifted - mean, contrast.count, rng))


def random_partition(contrast: Contrast) -> DirectionSet:
    """Means of count random parts, which differ in size by one prompt at most, the larger first.

    hits : prompts of each part. A part holds one prompt at least, so there may be fewer.
    """
    n = len(contrast.harmful)
    order = np.random.default_rng(contrast.seed).permutation(n)
    parts = np.array_split(order, min(contrast.count, n))
    means = np.stack([contrast.shifted[part].mean(axis=0) for part in parts])
    return replace(_without_hits(means), hits=torch.tensor([len(part) for part in parts]))


def single_direction(contrast: Contrast) -> DirectionSet:
    """SD."""
    return DirectionSet.single(contrast.single[contrast.layer], len(contrast.harmful))


def neighbouring_layers(contrast: Contrast) -> DirectionSet:
    """SD of the layers nearest to the one that is cut, that one first."""
    order = sorted(contrast.single, key=lambda layer: (abs(layer - contrast.layer), layer))
    vectors = [contrast.single[layer].numpy() for layer in order[: contrast.count]]
    return _without_hits(np.stack(vectors))


def principal_axes(contrast: Contrast) -> DirectionSet:
    """Of harmful minus the harmless mean: the first is near SD."""
    _, _, axes = np.linalg.svd(contrast.shifted, full_matrices=False)
    return _without_hits(axes[: contrast.count])


def kmeans_centroids(contrast: Contrast) -> DirectionSet:
    """k-means++ start, Lloyd's iterations; empty clusters give no direction."""
    data = contrast.shifted
    with warnings.catch_warnings(), np.errstate(invalid="ignore"):
        # Of fewer different prompts than clusters some are empty: they give no direction, below.
        warnings.simplefilter("ignore", UserWarning)
        centroids, labels = kmeans2(
            data, contrast.count, iter=100, minit="++", seed=np.random.default_rng(contrast.seed)
        )
    hits = np.bincount(labels, minlength=contrast.count)
    order = [i for i in np.argsort(-hits, kind="stable") if hits[i] > 0]
    return DirectionSet(
        torch.from_numpy(centroids[order]).float(),
        torch.tensor(order),
        torch.from_numpy(hits[order]),
    )


def leace_span(contrast: Contrast) -> DirectionSet:
    """Of the labels harmless and each category, by package concept-erasure."""
    names = sorted(set(contrast.categories))
    labels = torch.zeros(len(contrast.harmful) + len(contrast.harmless), len(names))
    for row, category in enumerate(contrast.categories):
        labels[row, names.index(category)] = 1
    return _erased(contrast, labels)


def leace_binary(contrast: Contrast) -> DirectionSet:
    """Of the one label harmful or not, by package concept-erasure.

    What LEACE removes is the span of the covariance of vectors and label, and of one binary label
    that is the mean difference: ablated as every direction is here, orthogonally, this is SD.
    LEACE's own projection is oblique.
    """
    labels = torch.zeros(len(contrast.harmful) + len(contrast.harmless), 1)
    labels[: len(contrast.harmful)] = 1
    return _erased(contrast, labels)


def _erased(contrast: Contrast, labels: Tensor) -> DirectionSet:
    """The span that hides labels (n + m, c) of the harmful, then the harmless vectors."""
    try:
        from concept_erasure import LeaceEraser
    except ImportError:
        raise InputError(
            f"method {'leace' if labels.shape[1] > 1 else 'leace-binary'!r} needs the package "
            "concept-erasure: install 'somatlas[leace]'"
        ) from None
    both = torch.cat([contrast.harmful, contrast.harmless]).double()
    eraser = LeaceEraser.fit(both, labels.double())
    axes, values, _ = torch.linalg.svd(eraser.proj_left, full_matrices=False)
    kept = axes[:, values > 1e-6 * values[0]].T
    return _without_hits(kept[: contrast.count].numpy())


METHODS: Mapping[str, Callable[[Contrast], DirectionSet]] = {
    "points": harmful_points,
    "shifted": shifted_noise,
    "partition": random_partition,
    "random": random_directions,
    "covariance": covariance_directions,
    "sd": single_direction,
    "layers": neighbouring_layers,
    "pca": principal_axes,
    "kmeans": kmeans_centroids,
    "leace": leace_span,
    "leace-binary": leace_binary,
}

# Methods that learn nothing of the harmful cloud but where it is: what any other is measured by.
FLOORS: Mapping[str, str] = {
    "points": "random harmful representations minus the harmless mean",
    "shifted": "the mean difference plus noise of the harmful covariance",
    "partition": "means of a random partition of the harmful representations",
}


def _noise(
    centred: NDArray[np.float64], count: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """(count, d) Gaussian draws of mean 0 with the sample covariance of the rows of (n, d)."""
    weights = rng.normal(size=(count, len(centred))) / np.sqrt(max(1, len(centred) - 1))
    return np.asarray(weights @ centred)


def _without_hits(vectors: NDArray[np.floating]) -> DirectionSet:
    unknown = torch.full((len(vectors),), -1)
    return DirectionSet(
        torch.from_numpy(np.ascontiguousarray(vectors)).float(), unknown, unknown.clone()
    )
