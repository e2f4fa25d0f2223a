"""What a map sees of coordinates of very different size.

Some models (Gemma 3) have one coordinate a hundred times the others. A Euclidean map sees little
else, and neither does a difference of means (abhishek9909/loud-channel-abliteration).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Scale = Literal["none", "standard", "mask", "winsor"]

LOUD = 10.0  # times what is typical: a spread, or a value, beyond it is loud


@dataclass(frozen=True)
class Scaling:
    """How vectors (n, d) are seen, and what of them directions are made of.

    kind : "none"; "standard", every coordinate divided by its spread; "mask", loud coordinates left
    out; "winsor", loud values clipped. center, spread, size : (d,) mean, standard deviation and
    root mean square of each coordinate over the vectors that it was made of. What is typical is the
    median over coordinates: a coordinate is loud by its spread (what a distance sees), a value by
    its size, each from `LOUD` times the typical one on.
    """

    kind: Scale
    center: Floats
    spread: Floats
    size: Floats

    @classmethod
    def of(cls, kind: Scale, X: Floats) -> Scaling:
        """Of the vectors that a map is trained on."""
        return cls(kind, X.mean(axis=0), X.std(axis=0), np.sqrt((X**2).mean(axis=0)))

    @property
    def typical(self) -> float:
        """The median coordinate's spread."""
        return float(np.median(self.spread))

    @property
    def loud(self) -> NDArray[np.bool_]:
        """(d,) which coordinates are."""
        return np.asarray(self.spread > LOUD * self.typical)

    def seen(self, X: Floats) -> Floats:
        """Vectors as the map sees them."""
        if self.kind == "standard":
            still = self.spread == 0  # nothing is to be seen there
            return np.asarray((X - self.center) / np.where(still, 1.0, self.spread))
        return self.quieted(X)

    def quieted(self, X: Floats) -> Floats:
        """Vectors of the raw stream, but for what is loud: what directions are made of.

        A direction is ablated from the raw stream, so where nothing is loud it is the raw
        difference whatever the map saw. A raw difference of loud coordinates would be loud itself,
        and ablating it would take out that coordinate and no refusal: "standard" leaves a loud
        coordinate the typical spread about its mean, "mask" nothing of it, "winsor" what lies
        within the bounds.
        """
        if self.kind == "standard":
            share = np.where(self.loud, self.typical / np.where(self.loud, self.spread, 1.0), 1.0)
            return np.asarray(self.center + (X - self.center) * share)
        if self.kind == "mask":
            return np.where(self.loud, 0.0, X)
        if self.kind == "winsor":
            most = LOUD * float(np.median(self.size))
            return np.asarray(np.clip(X, -most, most))
        return X
