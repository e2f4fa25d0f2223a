"""The map's neurons as directions: the paper's method (arXiv 2511.08379)."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from somatlas.directions.contract import Contrast, DirectionMethod
from somatlas.directions.direction_set import DirectionSet, by_hits
from somatlas.directions.scaling import Scale
from somatlas.directions.som import SIGMA, SOM, Samples, Topology


class SOMDirections(DirectionMethod):
    """The map's neurons that have hits, minus the harmless mean, most hits first.

    Parameters are `SOM`'s; `map_` is the fitted map. Where it sees scaled vectors (`scale`), a
    neuron's weights are no vector of the residual stream: a direction is then the mean of the
    vectors that the neuron wins, minus the harmless mean, both in raw values but for what is loud
    (`Scaling.quieted`). Weights unscaled would be another choice, which clipped or left-out
    coordinates do not allow, and a neuron's weights are such a mean, smoothed along the grid.

    >>> import numpy as np
    >>> harmful = np.random.default_rng(0).normal(3, 1, size=(40, 8))
    >>> made = SOMDirections(grid=(2, 2), seed=0).fit(harmful, np.zeros((10, 8)))
    >>> made.directions_.vectors.shape, int(made.directions_.hits.sum())
    (torch.Size([4, 8]), 40)
    """

    name = "som"
    title = "SOM directions (arXiv 2511.08379)"
    summary = "the map's neurons minus the harmless mean"
    is_drawn = makes_map = needs_mean_only = True
    run_settings = ("grid", "topology", "sigma", "learning_rate", "iterations", "scale")

    def __init__(
        self,
        grid: tuple[int, int] = (4, 4),
        topology: Topology = "hexagonal",
        sigma: float = SIGMA,
        learning_rate: float = 0.01,
        iterations: int = 10_000,
        seed: int = 0,
        scale: Scale = "none",
    ) -> None:
        self.grid = grid
        self.topology = topology
        self.sigma = sigma
        self.learning_rate = learning_rate
        self.iterations = iterations
        self.seed = seed
        self.scale = scale

    def make(self, contrast: Contrast) -> DirectionSet:
        """Train `map_` on the harmful vectors."""
        self.map_ = SOM(**self.get_params()).fit(contrast.harmful)
        center = contrast.harmless.mean(dim=0)
        if self.scale == "none":
            return DirectionSet.from_som(self.map_, center)
        neurons, scaling = by_hits(self.map_), self.map_.scaling_
        harmful = scaling.quieted(contrast.harmful.numpy())
        harmless = scaling.quieted(center.numpy()[None])[0]
        fields = [harmful[self.map_.bmus_ == neuron] for neuron in neurons.tolist()]
        vectors = np.stack([field.mean(axis=0) - harmless for field in fields])
        return DirectionSet.of_neurons(self.map_, neurons, torch.from_numpy(vectors))

    def partition(self, X: Samples) -> NDArray[np.int64]:
        """The best-matching unit of each row."""
        return self.map_.predict(X)
