"""The self-organizing map: numerics only, knows nothing of language models.

The map is trained online. At step t a sample x picks its best-matching unit b (the nearest
neuron) and every neuron i moves towards it:

    w_i += a(t) * exp(-|p_i - p_b|^2 / (2 s(t)^2)) * (x - w_i)

with p the neurons' places on the grid, a(t) = a0 / (1 + 2t/T) and s(t) = s0 / (1 + 2t/T).
Schedule, grid geometry and the order in which random numbers are drawn are MiniSom's, so that
for the same data and seed the weights agree with MiniSom 2.3.6 to float rounding.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray

from somatlas.errors import InputError

Floats = NDArray[np.float64]
Samples = NDArray[np.floating] | torch.Tensor
Topology = Literal["hexagonal", "rectangular"]

# Initial width in grid steps. At the paper's 0.33 a grid neighbour is pulled 1 % as hard as the
# winner, and the grid orders nothing; 1 is the narrowest at which maps of representations keep
# their neighbourhood, with no larger quantization error (docs/method.md).
SIGMA = 1.0


class SOM:
    """Self-organizing map on a hexagonal or rectangular grid, trained online.

    Parameters
    ----------
    grid : (rows, columns), each at least 1. The paper's grid is 4x4 (arXiv 2511.08379).
    topology : "hexagonal" (the paper's) or "rectangular".
    sigma : initial width of the neighbourhood, in grid steps (default `SIGMA`; the paper's: 0.33).
    learning_rate : initial rate a0, in (0, 1] (the paper's: 0.01).
    iterations : number of single-sample steps T (the paper's: 10,000).
    seed : decides the initial weights (samples of the data) and the order of the samples.

    Attributes
    ----------
    weights_ : (m, d) float64, neuron x * columns + y, MiniSom's order.
    hits_ : (m,) int64, how many training samples each neuron wins.
    bmus_ : (n,) int64, the winning neuron of each training sample.
    """

    def __init__(
        self,
        grid: tuple[int, int] = (4, 4),
        topology: Topology = "hexagonal",
        sigma: float = SIGMA,
        learning_rate: float = 0.01,
        iterations: int = 10_000,
        seed: int = 0,
    ) -> None:
        if len(grid) != 2 or min(grid) < 1:
            raise InputError(f"grid must be two whole numbers of at least 1, not {grid}")
        if topology not in ("hexagonal", "rectangular"):
            raise InputError(f"topology must be hexagonal or rectangular, not {topology!r}")
        if not (math.isfinite(sigma) and sigma > 0):
            raise InputError(f"sigma must be above 0, not {sigma}")
        if not 0 < learning_rate <= 1:
            raise InputError(f"learning_rate must be above 0 and at most 1, not {learning_rate}")
        if iterations < 1:
            raise InputError(f"iterations must be at least 1, not {iterations}")
        self.grid = (int(grid[0]), int(grid[1]))
        self.topology = topology
        self.sigma = sigma
        self.learning_rate = learning_rate
        self.iterations = iterations
        self.seed = seed
        self.weights_: Floats
        self.hits_: NDArray[np.int64]
        self.bmus_: NDArray[np.int64]

    @property
    def n_neurons(self) -> int:
        """m, the number of neurons."""
        return self.grid[0] * self.grid[1]

    def fit(self, X: Samples) -> Self:
        """Train on X (n, d), an array or tensor. Raises InputError on bad shape or values."""
        data = _as_samples(X)
        if self.n_neurons > len(data):
            raise InputError(
                f"a grid of {self.grid[0]}x{self.grid[1]} has more neurons than the "
                f"{len(data)} samples: use a smaller grid or more samples"
            )
        random = np.random.RandomState(self.seed)  # the generator that MiniSom uses
        # MiniSom draws a random start for every weight before it is told to start from samples.
        random.rand(*self.grid, data.shape[1])
        weights = data[[random.randint(len(data)) for _ in range(self.n_neurons)]]
        order = np.arange(self.iterations) % len(data)
        random.shuffle(order)
        from somatlas.directions.som_kernels import (
            train,  # loads the compiler, which only a map needs
        )

        train(weights, data, order, self.grid_distances(), self.learning_rate, self.sigma)
        self.weights_ = weights
        self.bmus_ = self.predict(data)
        self.hits_ = np.bincount(self.bmus_, minlength=self.n_neurons).astype(np.int64)
        return self

    def predict(self, X: Samples) -> NDArray[np.int64]:
        """Best-matching unit of each row of X (n, d): (n,) indices; ties go to the lower index."""
        data = _as_samples(X)
        if data.shape[1] != self.weights_.shape[1]:
            raise InputError(
                f"the map was trained on vectors of {self.weights_.shape[1]} values, "
                f"these have {data.shape[1]}"
            )
        from somatlas.directions.som_kernels import nearest_rows

        return nearest_rows(data, self.weights_)

    def coordinates(self) -> Floats:
        """(m, 2) place of each neuron on the plane, in grid steps: (along x, along y).

        On the hexagonal grid neighbours are one step apart: every second line, counted from
        the last, is shifted by half a step and lines are sqrt(3)/2 apart.
        """
        rows, columns = self.grid
        x, y = np.meshgrid(np.arange(rows, dtype=float), np.arange(columns, dtype=float))
        if self.topology == "hexagonal":
            x[::-2] -= 0.5
            y *= math.sqrt(3) / 2
        return np.stack([x.T.ravel(), y.T.ravel()], axis=1)

    def grid_distances(self) -> Floats:
        """(m, m) squared distance between neurons on the grid, in grid steps."""
        places = self.coordinates()
        return np.asarray(((places[:, None] - places[None]) ** 2).sum(axis=-1))

    def neighbours(self) -> NDArray[np.bool_]:
        """(m, m) which neurons are neighbours: the six of a hexagon, the eight around a square."""
        reach = 1.1 if self.topology == "hexagonal" else 2.1
        near = (self.grid_distances() < reach) & ~np.eye(self.n_neurons, dtype=bool)
        return np.asarray(near)

    def edges(self) -> NDArray[np.int64]:
        """(e, 2) the grid's lines: each pair of neurons one step apart once, the lower first."""
        return np.argwhere(np.triu(self.grid_distances() < 1.1, 1))

    def u_matrix(self) -> Floats:
        """(m,) mean distance from each neuron's weights to those of its neighbours on the grid.

        A lone neuron has 0.
        """
        near = self.neighbours()
        gaps = np.linalg.norm(self.weights_[:, None] - self.weights_[None], axis=-1)
        return np.asarray((gaps * near).sum(axis=1) / np.maximum(near.sum(axis=1), 1))


def fit_all(jobs: Sequence[tuple[SOM, Samples]], threads: int | None = None) -> list[SOM]:
    """Fit each map on its samples, several at a time: the compiled loops hold no lock.

    threads : how many at a time (default: the machine's cores).
    """
    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        return list(pool.map(lambda job: job[0].fit(job[1]), jobs))


def _as_samples(X: Samples) -> Floats:
    """X as a finite (n, d) float64 array."""
    if isinstance(X, torch.Tensor):
        X = X.detach().to("cpu", torch.float64).numpy()
    data = np.asarray(X, dtype=np.float64)
    if data.ndim != 2 or 0 in data.shape:
        raise InputError(f"samples must be a non-empty (n, d) array, not of shape {data.shape}")
    bad = np.flatnonzero(~np.isfinite(data).all(axis=1))
    if bad.size:
        raise InputError(
            f"{bad.size} of {len(data)} samples hold NaN or infinite values (first: {bad[0]}): "
            "they cannot be mapped"
        )
    return data
