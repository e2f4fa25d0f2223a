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
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias, Union, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from somatlas.arguments import check_choice, check_real, check_whole
from somatlas.directions.parameters import Parameterised
from somatlas.directions.scaling import Scale, Scaling
from somatlas.errors import InputError
from somatlas.numerics.real_values import real_array

if TYPE_CHECKING:  # settings and help read this module's defaults, and need no tensors
    import torch

Floats = NDArray[np.float64]
Samples: TypeAlias = Union[NDArray[np.floating], "torch.Tensor"]
Topology = Literal["hexagonal", "rectangular"]

# Initial width in grid steps. At the paper's 0.33 a grid neighbour is pulled 1 % as hard as the
# winner, and the grid orders nothing; 1 is the narrowest at which maps of representations keep
# their neighbourhood, with no larger quantization error (docs/method.md).
SIGMA = 1.0
_SEEDS = 2**32  # of NumPy's RandomState
_SCALING = ("center", "spread", "size")  # of a `Scaling`, in a file
_NUMBERS: Mapping[str, type[int | float]] = {
    "sigma": float,
    "learning_rate": float,
    "iterations": int,
    "seed": int,
}


class SOM(Parameterised):
    """Self-organizing map on a hexagonal or rectangular grid, trained online.

    scikit-learn's contract holds: parameters are stored as given and validated by `fit`.

    Parameters
    ----------
    grid : (rows, columns), each at least 1. The paper's grid is 4x4 (arXiv 2511.08379).
    topology : "hexagonal" (the paper's) or "rectangular".
    sigma : initial width of the neighbourhood, in grid steps (default `SIGMA`; the paper's: 0.33).
    learning_rate : initial rate a0, in (0, 1] (the paper's: 0.01).
    iterations : number of single-sample steps T (the paper's: 10,000).
    seed : decides the initial weights (samples of the data) and the order of the samples.
    scale : what it sees of coordinates of very different size (`somatlas.directions.scaling`):
        "none" (the paper's), "standard", "mask" or "winsor".

    Attributes
    ----------
    weights_ : (m, d) float64, neuron x * columns + y, MiniSom's order; of vectors as they are seen.
    scaling_ : how vectors are seen.
    hits_ : (m,) int64, how many training samples each neuron wins.
    bmus_ : (n,) int64, the winning neuron of each training sample; `labels_` is the same.
    n_features_in_ : d.

    Examples
    --------
    >>> som = SOM(grid=(1, 2), seed=0).fit([[0.0, 0.0], [0.0, 1.0], [9.0, 9.0], [9.0, 8.0]])
    >>> som.hits_.tolist(), len(set(som.labels_[:2])), som.n_features_in_
    ([2, 2], 1, 2)
    """

    weights_: Floats
    scaling_: Scaling
    hits_: NDArray[np.int64]
    bmus_: NDArray[np.int64]
    labels_: NDArray[np.int64]
    n_features_in_: int

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

    @property
    def n_neurons(self) -> int:
        """m, the number of neurons."""
        return self.grid[0] * self.grid[1]

    def fit(self, X: Samples, y: object = None) -> Self:
        """Train on X (n, d), an array or tensor; y is ignored, as scikit-learn's pipelines give it.

        Raises InputError on parameters that are out of range and on bad shape or values.
        """
        self._check_parameters()
        data = as_samples(X)
        if self.n_neurons > len(data):
            raise InputError(
                f"a grid of {self.grid[0]}x{self.grid[1]} has more neurons than the "
                f"{len(data)} samples: use a smaller grid or more samples"
            )
        self.scaling_ = Scaling.of(self.scale, data)
        data = self.scaling_.seen(data)
        random = np.random.RandomState(self.seed)  # the generator that MiniSom uses
        # MiniSom draws a random start for every weight before it is told to start from samples.
        random.rand(*self.grid, data.shape[1])
        weights = data[[random.randint(len(data)) for _ in range(self.n_neurons)]]
        order = np.arange(self.iterations) % len(data)
        random.shuffle(order)
        # Loads the compiler, which only a map needs.
        from somatlas.directions.som_kernels import nearest_rows, train

        train(weights, data, order, self.grid_distances(), self.learning_rate, self.sigma)
        self._set_fitted(weights, nearest_rows(data, weights))
        return self

    def fit_predict(self, X: Samples, y: object = None) -> NDArray[np.int64]:
        """`fit`, then the winning neuron of each training sample: (n,)."""
        return self.fit(X).bmus_

    def predict(self, X: Samples) -> NDArray[np.int64]:
        """Best-matching unit of each row of X (n, d): (n,) indices; ties go to the lower index."""
        data = self._as_fitted(X)
        from somatlas.directions.som_kernels import nearest_rows

        return nearest_rows(data, self.weights_)

    def transform(self, X: Samples) -> Floats:
        """(n, m) Euclidean distance of each row of X (n, d) to each neuron's weights."""
        return np.asarray(cdist(self._as_fitted(X), self.weights_))

    def seen(self, X: Samples) -> Floats:
        """X (n, d) as the map sees it, in the space of its weights."""
        data = as_samples(X)
        return data if self.scale == "none" else self.scaling_.seen(data)

    def coordinates(self) -> Floats:
        """(m, 2) place of each neuron on the plane, in grid steps: (along x, along y).

        On the hexagonal grid neighbours are one step apart: every second line, counted from
        the last, is shifted by half a step and lines are sqrt(3)/2 apart.
        """
        self._check_grid()
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

    def save(self, path: str | Path, facts: Mapping[str, str] | None = None) -> None:
        """Write a safetensors file: what was fitted, and where the neurons lie, for other readers.

        Its metadata has the parameters. facts : for the metadata too. Raises NotFittedError.
        """
        import torch

        from somatlas.files import write_tensors

        arrays = {
            "weights": self.weights_,
            "hits": self.hits_,
            "bmus": self.bmus_,
            "coordinates": self.coordinates(),
            "u_matrix": self.u_matrix(),
        }
        if self.scale != "none":
            arrays |= {name: getattr(self.scaling_, name) for name in _SCALING}
        numbers = {name: repr(getattr(self, name)) for name in _NUMBERS}
        texts = {"topology": self.topology, "scale": self.scale}
        parameters = {"grid": "x".join(map(str, self.grid)), **texts, **numbers}
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        write_tensors(path, tensors, {**(facts or {}), **parameters})

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote.

        A file of version 0.1.0 holds grid and topology alone: the other parameters are None then,
        and `fit` refuses them. Raises InputError for a damaged or other file.
        """
        from somatlas.files import read_tensors

        tensors, facts = read_tensors(path)
        if missing := {"weights", "bmus", "grid", "topology"} - tensors.keys() - facts.keys():
            raise InputError(f"{path} is not a file of a map: it lacks {min(missing)!r}")
        scale = facts.get("scale", "none")
        som = cls(topology=facts["topology"], scale=scale)  # type: ignore[arg-type]  # checked below
        try:
            rows, columns = map(int, facts["grid"].split("x"))
            for name, number in _NUMBERS.items():
                setattr(som, name, number(facts[name]) if name in facts else None)
        except ValueError as error:
            raise InputError(f"{path} holds a map of wrong parameters ({error})") from None
        som.grid = (rows, columns)
        weights, bmus = tensors["weights"].double().numpy(), tensors["bmus"].numpy()
        som._check_grid()
        whole = weights.ndim == 2 and len(weights) == som.n_neurons and np.isfinite(weights).all()
        if not whole or (len(bmus) and not 0 <= bmus.min() <= bmus.max() < som.n_neurons):
            raise InputError(f"{path} holds no map of {rows}x{columns} neurons: make it again")
        if scale != "none":
            own = [tensors[name].double().numpy() for name in _SCALING if name in tensors]
            if len(own) < len(_SCALING) or any(one.shape != weights.shape[1:] for one in own):
                raise InputError(f"{path} does not say how its map sees vectors: make it again")
            som.scaling_ = Scaling(som.scale, *own)
        som._set_fitted(weights, bmus)
        return som

    def _set_fitted(self, weights: Floats, bmus: NDArray[np.int64]) -> None:
        self.weights_ = weights
        self.bmus_ = self.labels_ = bmus
        self.hits_ = np.bincount(bmus, minlength=self.n_neurons).astype(np.int64)
        self.n_features_in_ = weights.shape[1]

    def _as_fitted(self, X: Samples) -> Floats:
        """X as an array, of vectors as long as those that the map was trained on."""
        length, data = self.weights_.shape[1], as_samples(X)
        if data.shape[1] != length:
            raise InputError(
                f"the map was trained on vectors of {length} values, these have {data.shape[1]}"
            )
        return self.seen(data)

    def _check_grid(self) -> None:
        grid: Any = self.grid  # whatever was given
        two = isinstance(grid, Sequence) and len(grid) == 2
        if not two or not all(isinstance(n, Integral) and int(n) >= 1 for n in grid):
            raise InputError(f"grid must be two whole numbers of at least 1, not {grid}")
        check_choice("topology", self.topology, get_args(Topology))
        check_choice("scale", self.scale, get_args(Scale))

    def _check_parameters(self) -> None:
        self._check_grid()
        check_real("sigma", self.sigma, above=0)
        check_real("learning_rate", self.learning_rate, above=0, most=1)
        check_whole("iterations", self.iterations, 1)
        check_whole("seed", self.seed, 0, _SEEDS)


def fit_all(jobs: Sequence[tuple[SOM, Samples]], threads: int | None = None) -> list[SOM]:
    """Fit each map on its samples, several at a time: the compiled loops hold no lock.

    threads : how many at a time (default: the machine's cores).
    """
    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        return list(pool.map(lambda job: job[0].fit(job[1]), jobs))


def as_samples(X: Samples) -> Floats:
    """X as a finite (n, d) float64 array; raises InputError for another shape or other values."""
    data = real_array(X, "samples")
    if data.ndim != 2 or 0 in data.shape:
        raise InputError(f"samples must be a non-empty (n, d) array, not of shape {data.shape}")
    bad = np.flatnonzero(~np.isfinite(data).all(axis=1))
    if bad.size:
        raise InputError(
            f"{bad.size} of {len(data)} samples hold NaN or infinite values (first: {bad[0]}): "
            "they cannot be mapped"
        )
    return data
