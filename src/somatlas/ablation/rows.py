"""A different ablation for each row of a batch: several of them share one forward pass."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from somatlas.ablation.layered import LayerProjections
from somatlas.ablation.projection import Projection
from somatlas.errors import InputError


class RowProjections:
    """Ablations side by side, and which of them each row of the present batch takes.

    Whoever deals the batches assigns their rows (`somatlas.models.batches.deal`). Of some, none may
    be left at a place (`at`): their rows stay as they are there.
    """

    def __init__(self, ablations: Sequence[Projection | LayerProjections]) -> None:
        self.ablations = tuple(ablations)
        self.d_model = ablations[0].d_model
        self.which: tuple[int, ...] = ()
        self._alike = all(isinstance(one, Projection) for one in ablations)
        self._at: dict[int | None, _Placed | None] = {}

    def __len__(self) -> int:
        return len(self.ablations)

    def assign(self, which: Sequence[int]) -> None:
        """Row i of the batches to come is ablated by ablations[which[i]]."""
        self.which = tuple(which)
        for placed in self._at.values():
            if placed is not None:
                placed.assign(self.which)

    def at(self, block: int | None) -> _Placed | None:
        """What acts on the writes of a block, or of the embeddings (None); None where it is
        nothing for every row."""
        place = None if self._alike else block  # one for all places, its factors gathered once
        if place not in self._at:
            own = [one.at(place) for one in self.ablations]
            placed = _Placed(own, self.d_model) if any(p is not None for p in own) else None
            if placed is not None:
                placed.assign(self.which)
            self._at[place] = placed
        return self._at[place]


class _Placed:
    """The projections side by side at one place."""

    def __init__(self, projections: Sequence[Projection | None], d_model: int) -> None:
        self.projections, self.d_model = tuple(projections), d_model
        self.which: tuple[int, ...] = ()
        self._followers: list[_Placed] = []
        self._placed: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}

    def assign(self, which: tuple[int, ...]) -> None:
        self.which = which
        self._placed = {}
        for follower in self._followers:
            follower.assign(which)

    def apply(self, Y: Tensor) -> Tensor:
        """Each row of Y (R, ..., d), or of what was flattened from it, mapped by its projection.

        One row for all, as a table of positions puts out, becomes one for each. Raises InputError
        for any other number of rows, as where tokens come first.
        """
        if Y.ndim > 2:
            if len(Y) not in (1, len(self.which)):
                raise InputError(
                    f"something that writes to the residual stream put out {len(Y)} rows where "
                    f"{len(self.which)} were given: this model cannot take ablations side by side"
                )
            Y = Y.expand(len(self.which), *Y.shape[1:])
        A, B = self._factors(Y.device, torch.promote_types(Y.dtype, torch.float32))
        y = Y.reshape(len(self.which), -1, self.d_model).to(A.dtype)
        return torch.baddbmm(y, y @ B, A, alpha=-1).to(Y.dtype).reshape(Y.shape)

    def transposed(self) -> _Placed:
        """The transposed maps, which are assigned the same rows as these from now on."""
        other = _Placed(
            [None if p is None else p.transposed() for p in self.projections], self.d_model
        )
        other.assign(self.which)
        self._followers.append(other)
        return other

    def _factors(self, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """A^T (R, k, d) and B (R, d, k), zeros where a projection has fewer directions."""
        key = (device, dtype)
        if key not in self._placed:
            none = torch.zeros(self.d_model, 0, device=device, dtype=dtype)
            pairs = [
                (none, none) if p is None else p.factors(device, dtype) for p in self.projections
            ]
            A, B = (
                torch.nn.utils.rnn.pad_sequence([pair[i].T for pair in pairs], batch_first=True)
                for i in (0, 1)
            )
            rows = torch.tensor(self.which, device=device)
            self._placed[key] = (A[rows], B[rows].transpose(1, 2).contiguous())
        return self._placed[key]
