"""A set of directions as one linear map, P = I - A B^T, and its application to a model.

Ablating directions means applying P to everything that is written to the residual stream. Two
forms are here and give the same logits: forward hooks on the writers (nothing is changed, removal
restores the model bit for bit) and an edit of the writers' weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from somatlas.errors import InputError

Mode = Literal["sequential", "subspace"]


class Projection:
    """P = I - A B^T, which ablates k directions from d-dimensional vectors.

    Parameters
    ----------
    vectors : (k, d) array or tensor of directions; their length does not matter.
    mode : "sequential" applies (I - u_k u_k^T) ... (I - u_1 u_1^T) in the given order, as the
        paper's code does (arXiv 2511.08379); where directions are not orthogonal P is not
        symmetric and something along the earlier ones comes back. "subspace" removes the span:
        the orthogonal projection, whatever the order.

    Attributes
    ----------
    A, B : (d, r) float64 tensors; r = k in sequential mode, the rank of the span in subspace mode.

    Raises InputError for vectors of a wrong shape, of length zero, or not finite.
    """

    def __init__(self, vectors: NDArray[Any] | Tensor, mode: Mode = "sequential") -> None:
        if mode not in ("sequential", "subspace"):
            raise InputError(f"mode must be sequential or subspace, not {mode!r}")
        v = torch.as_tensor(vectors).detach().to("cpu", torch.float64)
        if v.ndim != 2 or 0 in v.shape:
            raise InputError(f"directions must be a non-empty (k, d) array, not {tuple(v.shape)}")
        lengths = torch.linalg.vector_norm(v, dim=1, keepdim=True)
        for i, length in enumerate(lengths.flatten().tolist()):
            if not np.isfinite(length) or length == 0:
                raise InputError(f"direction {i} has length {length} and cannot be ablated")
        self.mode = mode
        self._placed: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}
        self.A, self.B = (_sequential if mode == "sequential" else _subspace)(v / lengths)

    @property
    def d_model(self) -> int:
        """d, the length of the vectors that P maps."""
        return self.A.shape[0]

    def apply(self, Y: Tensor) -> Tensor:
        """Each row y of Y (..., d) mapped to P y, in Y's dtype and on its device.

        Half-precision rows are computed in float32 and rounded once.
        """
        A, B = self._factors(Y.device, torch.promote_types(Y.dtype, torch.float32))
        y = Y.to(A.dtype)
        return (y - (y @ B) @ A.T).to(Y.dtype)

    def matrix(self) -> Tensor:
        """P as a dense (d, d) float64 matrix, for checks."""
        return torch.eye(self.d_model, dtype=torch.float64) - self.A @ self.B.T

    def _factors(self, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """A and B on a device: copied there once, however many hooks ask."""
        key = (device, dtype)
        if key not in self._placed:
            self._placed[key] = (self.A.to(device, dtype), self.B.to(device, dtype))
        return self._placed[key]


def _sequential(u: Tensor) -> tuple[Tensor, Tensor]:
    """A, B of the product of single ablations of the unit rows of u (k, d), first row first.

    With M = A B^T so far, (I - u u^T)(I - M) = I - M - u (u - M^T u)^T: each direction appends
    u to A and u - B (A^T u) to B.
    """
    A = u.T.contiguous()
    B = A.clone()
    for j in range(1, len(u)):
        B[:, j] -= B[:, :j] @ (A[:, :j].T @ u[j])
    return A, B


def _subspace(u: Tensor) -> tuple[Tensor, Tensor]:
    """A = B = an orthonormal basis of the span of the unit rows of u (k, d)."""
    _, values, basis = torch.linalg.svd(u, full_matrices=False)
    tolerance = float(values[0]) * max(u.shape) * torch.finfo(torch.float64).eps
    Q = basis[values > tolerance].T.contiguous()
    return Q, Q


@contextmanager
def ablated(writers: Iterable[nn.Module], projection: Projection | None) -> Iterator[None]:
    """While active, P is applied to the output of every module in writers.

    A module's output may be a tensor or a tuple whose first item is the tensor written to the
    residual stream. `projection=None` changes nothing, so that callers need no second path.
    """
    if projection is None:
        yield
        return

    def project(_module: nn.Module, _args: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (projection.apply(output[0]), *output[1:])
        return projection.apply(output)

    handles = [writer.register_forward_hook(project) for writer in writers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def edit_weights(writers: Iterable[nn.Module], projection: Projection) -> None:
    """Change every writer in place so that it writes P y: W - A (B^T W), computed in float64.

    A writer is an `nn.Embedding` (rows are outputs) or an `nn.Linear` (with or without bias). The
    caller unties an output head that shares the embedding's matrix.
    """
    A, B = projection.A, projection.B
    for writer in writers:
        if isinstance(writer, nn.Embedding):
            writer.weight.copy_(projection.apply(writer.weight.double()))
        elif isinstance(writer, nn.Linear):
            a, b = A.to(writer.weight.device), B.to(writer.weight.device)
            W = writer.weight.double()
            writer.weight.copy_(W - a @ (b.T @ W))
            if writer.bias is not None:
                writer.bias.copy_(projection.apply(writer.bias.double()))
        else:
            raise InputError(
                f"the weights of a {type(writer).__name__} cannot be edited: use hooks"
            )
