"""Methods that turn representations into a DirectionSet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from somatlas.directions.som import SOM
from somatlas.errors import InputError
from somatlas.files import read_tensors, write_tensors


@dataclass(frozen=True)
class DirectionSet:
    """Directions in rank order; a direction's id everywhere is its row here.

    vectors : (r, d) float32. neurons : (r,) int64, the neuron each comes from (zeros for methods
    without neurons). hits : (r,) int64, how many harmful representations each stands for.
    """

    vectors: Tensor
    neurons: Tensor
    hits: Tensor

    def __len__(self) -> int:
        return len(self.vectors)

    @classmethod
    def from_som(cls, som: SOM, harmless_mean: NDArray[Any] | Tensor) -> Self:
        """w_i - c for each neuron with hits, most hits first (paper, section on MD).

        Ties go to the neuron that is hit first in the order of the training data.
        """
        centroid = torch.as_tensor(harmless_mean).detach().to("cpu", torch.float64)
        weights = torch.from_numpy(som.weights_)
        if centroid.shape != weights.shape[1:]:
            raise InputError(
                f"the harmless mean has shape {tuple(centroid.shape)}, "
                f"the map's neurons {tuple(weights.shape[1:])}"
            )
        hit, first = np.unique(som.bmus_, return_index=True)
        order = sorted(range(len(hit)), key=lambda i: (-som.hits_[hit[i]], first[i]))
        neurons = torch.from_numpy(hit[order])
        return cls(
            vectors=(weights[neurons] - centroid).float(),
            neurons=neurons,
            hits=torch.from_numpy(som.hits_)[neurons],
        )

    @classmethod
    def single(cls, mean_difference: Tensor, hits: int) -> Self:
        """The single direction (SD) alone, from `mean_difference`; hits harmful prompts gave it."""
        return cls(
            vectors=mean_difference[None],
            neurons=torch.zeros(1, dtype=torch.int64),
            hits=torch.tensor([hits]),
        )

    def save(self, path: Path, metadata: Mapping[str, str]) -> None:
        """Write a safetensors file with where the directions come from in its metadata."""
        tensors = {"vectors": self.vectors, "neurons": self.neurons, "hits": self.hits}
        write_tensors(path, tensors, metadata)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote, or a directions.pt of the paper's code.

        Raises InputError for a damaged or other file.
        """
        if path.suffix == ".pt":
            return cls.from_paper_file(path)
        tensors, _ = read_tensors(path)
        if missing := {"vectors", "neurons", "hits"} - tensors.keys():
            raise InputError(f"{path} is not a file of directions: it lacks {min(missing)!r}")
        _check_finite(tensors["vectors"], path)
        return cls(tensors["vectors"], tensors["neurons"], tensors["hits"])

    @classmethod
    def from_paper_file(cls, path: Path) -> Self:
        """The vectors of a directions.pt: a tensor (r, d), one vector, or a list, in its order.

        It is unpickled with weights_only, so that it can run nothing; neurons and hits are unknown
        and -1.
        """
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # of several kinds, none of them torch's own
            reason = " ".join(str(error).split())[:120] or type(error).__name__
            raise InputError(f"{path} cannot be read as a file of tensors ({reason})") from None
        if isinstance(content, Tensor) and content.ndim == 1:
            content = content[None]
        rows = list(content) if isinstance(content, list | tuple | Tensor) else []
        if not rows or not all(isinstance(r, Tensor) and r.is_floating_point() for r in rows):
            raise InputError(f"{path} holds no list of directions")
        if len({row.numel() for row in rows}) > 1:
            raise InputError(f"{path} holds directions of different lengths")
        vectors = torch.stack([row.flatten().float() for row in rows])
        _check_finite(vectors, path)
        unknown = torch.full((len(rows),), -1)
        return cls(vectors, unknown, unknown.clone())


def _check_finite(vectors: Tensor, path: Path) -> None:
    if not vectors.isfinite().all():
        raise InputError(f"{path} holds directions with NaN or infinite values")


def mean_difference(harmful: Tensor, harmless: Tensor) -> Tensor:
    """Mean over the first axis of harmful (n, ...) minus that of harmless (m, ...), in float32.

    With (n, L, d) and (m, L, d) this is SD at every layer at once.
    """
    return (harmful.double().mean(dim=0) - harmless.double().mean(dim=0)).float()
