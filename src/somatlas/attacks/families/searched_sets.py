"""Sets of directions of one method over several layers: the map, k-means, axes, floors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

from pydantic import Field

from somatlas.attacks.attack import Attack, Count, Counts, Rounds
from somatlas.attacks.pools import Pool, pool_of
from somatlas.attacks.set_search import SetSearch
from somatlas.attacks.target import Target

KS = (3, 1, 5, 2, 7, 4, 6)  # of a round, so that few attempts span the range
LAYERS = 4


class MethodAttack(Attack):
    """k = 1 to 7 directions of a method (`somatlas.directions.methods`) at the most promising
    layers, the sets searched.

    A subclass names the method. layers : how many of the layers, by the screen. count : directions
    of a layer. ks : how many are ablated together, in the order in which a round tries them.
    """

    method: ClassVar[str]

    def __init__(self, layers: Count = LAYERS, count: Count = 16, ks: Counts = KS) -> None:
        self.layers = layers
        self.count = count
        self.ks = ks

    def pools(self, target: Target) -> Sequence[Pool]:
        """The directions of each layer."""
        layers = [score.layer for score in target.screened_layers()[: self.layers]]
        return [pool_of(target, self.method, layer, {"count": self.count}) for layer in layers]

    def rounds(self, target: Target) -> Rounds:
        return SetSearch(self.name, self.pools(target), self.ks, target.seed).rounds()


class MapAttack(MethodAttack):
    """The map's neurons, of maps at several layers and of several grids (arXiv 2511.08379)."""

    name = "som"
    title = "SOM directions"
    summary = "k neurons of maps at several layers and of several grids, the sets searched"
    method = "som"

    def __init__(
        self,
        layers: Count = LAYERS,
        grids: Annotated[tuple[tuple[Count, Count], ...], Field(min_length=1)] = ((4, 4), (3, 3)),
        ks: Counts = KS,
    ) -> None:
        self.layers = layers
        self.grids = grids
        self.ks = ks

    def pools(self, target: Target) -> Sequence[Pool]:
        """A map a layer and grid."""
        layers = [score.layer for score in target.screened_layers()[: self.layers]]
        return [
            pool_of(target, self.method, layer, {"grid": grid}, label="x".join(map(str, grid)))
            for layer in layers
            for grid in self.grids
        ]


class KMeansAttack(MethodAttack):
    """k-means centroids."""

    name = method = "kmeans"
    title = "k-means centroids"
    summary = "k centroids of the harmful representations, the sets searched"


class PCAAttack(MethodAttack):
    """Principal axes."""

    name = method = "pca"
    title = "principal axes"
    summary = "k principal axes of harmful minus the harmless mean, the sets searched"


class LEACEAttack(MethodAttack):
    """The span that LEACE removes."""

    name = method = "leace"
    title = "LEACE"
    summary = "k directions of the span that hides the category, the sets searched"


class NeighboursAttack(MethodAttack):
    """Mean differences of neighbouring layers."""

    name = method = "layers"
    title = "neighbouring layers"
    summary = "k mean differences of layers near the most promising ones, the sets searched"


class PointsAttack(MethodAttack):
    """Random harmful representations: what a search gains without any structure."""

    name = method = "points"
    title = "points (a floor)"
    summary = "k random harmful representations minus the harmless mean, the sets searched"
    is_floor = True
