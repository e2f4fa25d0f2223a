"""Whether one coordinate of the residual stream drowns the others."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from somatlas.numerics.real_values import in_float64

SHARE = 0.5  # of the mean difference's squared length
RATIO = 5.0  # times the root mean square of a representation's values


@dataclass(frozen=True)
class Loudest:
    """The largest coordinate of a layer's mean difference.

    share : its part of the difference's squared length. ratio : its root mean square over prompts,
    over that of all coordinates; at most the root of d, where it is all there is.
    """

    coordinate: int
    share: float
    ratio: float

    @property
    def is_loud(self) -> bool:
        """Whether it is most of the difference, and because it is large, not because the two sides
        differ there alone."""
        return self.share >= SHARE and self.ratio >= RATIO


def loudest(harmful: Tensor, harmless: Tensor) -> list[Loudest]:
    """Of each layer. harmful : (n, L, d), harmless : (m, L, d) representations."""
    found = []
    for X, Y in zip(in_float64(harmful).unbind(1), in_float64(harmless).unbind(1), strict=True):
        squares = (X.mean(dim=0) - Y.mean(dim=0)) ** 2
        place = int(squares.argmax())
        power = (X**2).mean(dim=0) + (Y**2).mean(dim=0)
        ratio = float((power[place] / power.mean()).sqrt())
        found.append(Loudest(place, float(squares[place] / squares.sum()), ratio))
    return found
