"""Directions that are drawn and not learned: the floors, and random ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from somatlas.directions.contract import COUNT, Contrast, DirectionMethod
from somatlas.directions.direction_set import DirectionSet


class _Drawn(DirectionMethod):
    """count : how many directions. seed : decides them. Their ranks mean nothing."""

    is_drawn = True

    def __init__(self, count: int = COUNT, seed: int = 0) -> None:
        self.count = count
        self.seed = seed

    @property
    def _rng(self) -> np.random.Generator:
        return np.random.default_rng(self.seed)


class PointDirections(_Drawn):
    """Random harmful representations, none twice; all of them where there are fewer than count."""

    name = "points"
    title = "random harmful representations (a floor)"
    summary = "random harmful representations minus the harmless mean"
    is_floor = True

    def make(self, contrast: Contrast) -> NDArray[np.float64]:
        """Rows of the shifted cloud."""
        return contrast.shifted[self._rng.permutation(len(contrast.harmful))[: self.count]]


class ShiftedDirections(_Drawn):
    """Draws of the Gaussian that has the harmful cloud's mean, from the harmless one, and its
    covariance."""

    name = "shifted"
    title = "the mean difference plus noise (a floor)"
    summary = "the mean difference plus noise of the harmful covariance"
    is_floor = True

    def make(self, contrast: Contrast) -> NDArray[np.float64]:
        """The mean difference plus a draw each."""
        mean = contrast.shifted.mean(axis=0)
        return np.asarray(mean + _noise(contrast.shifted - mean, self.count, self._rng))


class PartitionDirections(_Drawn):
    """Means of count random parts, which differ in size by one prompt at most, the larger first.

    hits : prompts of each part. A part holds one prompt at least, so there may be fewer.
    """

    name = "partition"
    title = "means of a random partition (a floor)"
    summary = "means of a random partition of the harmful representations"
    is_floor = True

    def make(self, contrast: Contrast) -> DirectionSet:
        """A mean a part."""
        n = len(contrast.harmful)
        parts = np.array_split(self._rng.permutation(n), min(self.count, n))
        means = np.stack([contrast.shifted[part].mean(axis=0) for part in parts])
        hits = torch.tensor([len(part) for part in parts])
        return replace(DirectionSet.of_vectors(means), hits=hits)


class RandomDirections(_Drawn):
    """Isotropic Gaussian: what ablating any k directions does."""

    name = "random"
    title = "random directions (a control)"
    summary = "isotropic Gaussian noise: what ablating any directions does"
    makes_axes = True

    def make(self, contrast: Contrast) -> NDArray[np.float64]:
        """Standard normal values."""
        return self._rng.normal(size=(self.count, contrast.harmful.shape[1]))


class CovarianceDirections(_Drawn):
    """Gaussian of mean zero with the covariance of the harmful representations."""

    name = "covariance"
    title = "random directions of the harmful covariance (a control)"
    summary = "Gaussian noise with the covariance of the harmful representations, centred"
    makes_axes = True

    def make(self, contrast: Contrast) -> NDArray[np.float64]:
        """Draws of the centred cloud's covariance."""
        centred = contrast.shifted - contrast.shifted.mean(axis=0)
        return _noise(centred, self.count, self._rng)


def _noise(
    centred: NDArray[np.float64], count: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """(count, d) Gaussian draws of mean 0 with the sample covariance of the rows of (n, d)."""
    weights = rng.normal(size=(count, len(centred))) / np.sqrt(max(1, len(centred) - 1))
    return np.asarray(weights @ centred)
