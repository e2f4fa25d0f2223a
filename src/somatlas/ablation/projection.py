"""A set of directions as one linear map, P = I - A B^T."""

from __future__ import annotations

import copy
from typing import Any, Literal, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from somatlas.arguments import check_real
from somatlas.errors import InputError
from somatlas.numerics.real_values import real_array

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
    strength : s in I - s A B^T, which is (1 - s) I + s P: below 1 a share of what lies along the
        directions stays, above 1 it comes back with its sign turned.

    Attributes
    ----------
    vectors : (k, d) float64, as given.
    A, B : (d, r) float64 tensors; r = k in sequential mode, the rank of the span in subspace mode.
        The strength is in A.

    Raises InputError for vectors of a wrong shape, of length zero, or not finite, and for a
    strength that is no number above 0.

    >>> P = Projection(np.array([[0.0, 2.0]]))
    >>> P.apply(np.array([[3.0, 4.0]])).tolist()
    [[3.0, 0.0]]
    """

    def __init__(
        self,
        vectors: NDArray[Any] | Tensor,
        mode: Mode = "sequential",
        strength: float = 1.0,
    ) -> None:
        check_real("strength", strength, above=0)
        if mode not in ("sequential", "subspace"):
            raise InputError(f"mode must be sequential or subspace, not {mode!r}")
        v = torch.tensor(real_array(vectors, "directions"))
        if v.ndim != 2 or 0 in v.shape:
            raise InputError(f"directions must be a non-empty (k, d) array, not {tuple(v.shape)}")
        lengths = torch.linalg.vector_norm(v, dim=1, keepdim=True)
        for i, length in enumerate(lengths.flatten().tolist()):
            if not np.isfinite(length) or length == 0:
                raise InputError(f"direction {i} has length {length} and cannot be ablated")
        self.mode, self.vectors, self.strength = mode, v, float(strength)
        self._placed: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}
        self.A, self.B = (_sequential if mode == "sequential" else _subspace)(v / lengths)
        if strength != 1:
            self.A = self.A * strength

    @property
    def d_model(self) -> int:
        """d, the length of the vectors that P maps."""
        return self.A.shape[0]

    def at(self, block: int | None) -> Projection:
        """What acts on the writes of a block, or of the embeddings (None): the same everywhere."""
        return self

    @overload
    def apply(self, Y: Tensor) -> Tensor: ...

    @overload
    def apply(self, Y: NDArray[Any]) -> NDArray[Any]: ...

    def apply(self, Y: Tensor | NDArray[Any]) -> Tensor | NDArray[Any]:
        """Each row y of Y (..., d), array or tensor, mapped to P y, of Y's kind and dtype.

        Half-precision rows are computed in float32 and rounded once; lists give a float64 array.
        Raises InputError for rows of another length or of no floating-point numbers.
        """
        if not isinstance(Y, Tensor):
            rows = Y if isinstance(Y, np.ndarray) else real_array(Y, "rows")
            if rows.dtype.kind != "f":  # of whole numbers P y would be cut to whole numbers
                raise InputError(f"rows must be floating-point numbers, not {rows.dtype}")
            owned = np.array(rows, dtype=rows.dtype.newbyteorder("="), order="C")
            mapped: NDArray[Any] = self.apply(torch.from_numpy(owned)).numpy()
            return mapped
        if not Y.is_floating_point():
            raise InputError(f"rows must be floating-point numbers, not {Y.dtype}")
        if Y.ndim == 0 or Y.shape[-1] != self.d_model:
            length = Y.shape[-1] if Y.ndim else 1
            raise InputError(f"rows of {length} values cannot be mapped, d is {self.d_model}")
        A, B = self.factors(Y.device, torch.promote_types(Y.dtype, torch.float32))
        y = Y.reshape(-1, self.d_model).to(A.dtype)
        return torch.addmm(y, y @ B, A.T, alpha=-1).to(Y.dtype).reshape(Y.shape)

    def transposed(self) -> Projection:
        """The transposed map, P^T = I - B A^T."""
        other = copy.copy(self)
        other.A, other.B = self.B, self.A
        other._placed = {}
        return other

    def matrix(self) -> Tensor:
        """P as a dense (d, d) float64 matrix, for checks."""
        return torch.eye(self.d_model, dtype=torch.float64) - self.A @ self.B.T

    def factors(self, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
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
