"""A different projection for each row of a batch: several ablations share one forward pass."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from somatlas.ablation.projection import Projection


class RowProjections:
    """Projections side by side, and which of them each row of the present batch takes.

    Whoever deals the batches assigns their rows (`somatlas.models.batches.deal`).
    """

    def __init__(self, projections: Sequence[Projection]) -> None:
        self.projections = tuple(projections)
        self.d_model = projections[0].d_model
        self.which: tuple[int, ...] = ()
        self._followers: list[RowProjections] = []
        self._placed: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}

    def __len__(self) -> int:
        return len(self.projections)

    def assign(self, which: Sequence[int]) -> None:
        """Row i of the batches to come is ablated by projections[which[i]]."""
        self.which = tuple(which)
        self._placed = {}
        for follower in self._followers:
            follower.assign(which)

    def apply(self, Y: Tensor) -> Tensor:
        """Each row of Y (R, ..., d), or of what was flattened from it, mapped by its projection."""
        A, B = self._factors(Y.device, torch.promote_types(Y.dtype, torch.float32))
        y = Y.reshape(len(self.which), -1, self.d_model).to(A.dtype)
        return torch.baddbmm(y, y @ B, A, alpha=-1).to(Y.dtype).reshape(Y.shape)

    def transposed(self) -> RowProjections:
        """The transposed maps, which are assigned the same rows as these from now on."""
        other = RowProjections([p.transposed() for p in self.projections])
        other.assign(self.which)
        self._followers.append(other)
        return other

    def _factors(self, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """A^T (R, k, d) and B (R, d, k), zeros where a projection has fewer directions."""
        key = (device, dtype)
        if key not in self._placed:
            pairs = [p.factors(device, dtype) for p in self.projections]
            A, B = (
                torch.nn.utils.rnn.pad_sequence([pair[i].T for pair in pairs], batch_first=True)
                for i in (0, 1)
            )
            rows = torch.tensor(self.which, device=device)
            self._placed[key] = (A[rows], B[rows].transpose(1, 2).contiguous())
        return self._placed[key]
