"""Directions that are learned without a map: SD, other layers' SD, principal axes, k-means."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2
from scipy.spatial.distance import cdist
from torch import Tensor

from somatlas.directions.contract import COUNT, Contrast, DirectionMethod
from somatlas.directions.direction_set import DirectionSet
from somatlas.directions.som import Samples, as_samples
from somatlas.errors import InputError


class SingleDirection(DirectionMethod):
    """The mean difference (SD), alone."""

    name = "sd"
    title = "single direction (mean difference)"
    summary = "the mean difference, alone"
    makes_one = True

    def make(self, contrast: Contrast) -> DirectionSet:
        """SD; its hits are all harmful vectors."""
        return DirectionSet.of_mean_difference(contrast.single, len(contrast.harmful))


class LayerDirections(DirectionMethod):
    """SD of the layers nearest to the one that is cut, that one first.

    `fit` needs a context with `layer` and `differences`. count : how many layers, at most.
    """

    name = "layers"
    title = "mean differences of neighbouring layers"
    summary = "the mean differences of the layers nearest to the one that is cut"
    is_sampled = False  # a sample of one layer's representations gives one layer's SD

    def __init__(self, count: int = COUNT) -> None:
        self.count = count

    def make(self, contrast: Contrast) -> Tensor:
        """Of two layers equally near the lower comes first."""
        differences, cut = contrast.context.differences, contrast.context.layer
        if cut is None or not differences:
            raise InputError(
                "method 'layers' needs the mean differences of several layers: give fit a "
                "context=Context(differences=..., layer=...)"
            )
        order = sorted(differences, key=lambda layer: (abs(layer - cut), layer))
        return torch.stack([differences[layer] for layer in order[: self.count]])


class PCADirections(DirectionMethod):
    """Principal axes of harmful minus the harmless mean, not centred again: the first is near SD.

    count : how many, at most.
    """

    name = "pca"
    title = "principal axes"
    summary = "principal axes of harmful minus the harmless mean, not centred again"
    makes_axes = True

    def __init__(self, count: int = COUNT) -> None:
        self.count = count

    def make(self, contrast: Contrast) -> NDArray[np.float64]:
        """Right singular vectors, largest value first."""
        _, _, axes = np.linalg.svd(contrast.shifted, full_matrices=False)
        return np.asarray(axes[: self.count])


class KMeansDirections(DirectionMethod):
    """k-means centroids of harmful minus the harmless mean, most prompts first.

    k-means++ start, Lloyd's iterations. count : clusters; empty ones give no direction. seed :
    decides the start.
    """

    name = "kmeans"
    title = "k-means centroids"
    summary = "k-means centroids of harmful minus the harmless mean, most prompts first"
    is_drawn = True

    def __init__(self, count: int = COUNT, seed: int = 0) -> None:
        self.count = count
        self.seed = seed

    def make(self, contrast: Contrast) -> DirectionSet:
        """neurons : the clusters' numbers; hits : their prompts."""
        self.harmless_mean_ = contrast.harmless.mean(dim=0).numpy()
        with warnings.catch_warnings(), np.errstate(invalid="ignore"):
            # Of fewer different prompts than clusters some are empty: they give no direction.
            warnings.simplefilter("ignore", UserWarning)
            centroids, labels = kmeans2(
                contrast.shifted,
                self.count,
                iter=100,
                minit="++",
                seed=np.random.default_rng(self.seed),
            )
        hits = np.bincount(labels, minlength=self.count)
        order = [i for i in np.argsort(-hits, kind="stable") if hits[i] > 0]
        return DirectionSet(
            torch.from_numpy(centroids[order]).float(),
            torch.tensor(order),
            torch.from_numpy(hits[order]),
        )

    def partition(self, X: Samples) -> NDArray[np.int64]:
        """The rank of the centroid nearest to each row."""
        centroids = self.directions_.vectors.double().numpy()
        return np.asarray(cdist(as_samples(X) - self.harmless_mean_, centroids).argmin(axis=1))
