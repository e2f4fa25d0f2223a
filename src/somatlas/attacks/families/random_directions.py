"""Directions that know nothing of refusal."""

from __future__ import annotations

from somatlas.ablation import Projection
from somatlas.attacks.attack import Ablated, Attack, Attempt, Counts, Rounds
from somatlas.attacks.families.searched_sets import KS
from somatlas.attacks.target import Target
from somatlas.directions.methods import make_method

KINDS = ("random", "covariance")


class RandomAttack(Attack):
    """k random directions, new ones each time: isotropic ones, and in turn ones with the covariance
    of the harmful representations at the most promising layer. ks : as `MethodAttack`'s."""

    name = "random"
    title = "random directions (the floor)"
    summary = "k random directions, isotropic or of the harmful covariance"
    is_floor = True

    def __init__(self, ks: Counts = KS) -> None:
        self.ks = ks

    @property
    def most_directions(self) -> int:
        return max(self.ks)

    def rounds(self, target: Target) -> Rounds:
        layer = target.screened_layers()[0].layer
        contrast = target.contrast(layer)
        draw = 0
        while True:
            kind = KINDS[draw % len(KINDS)]
            batch: list[Attempt] = []
            for k in self.ks:
                made = make_method(kind, {"count": k, "seed": target.seed + 1_000 * draw + k})
                found = made.fit(contrast.harmful, contrast.harmless).directions_
                about = {"method": kind, "draw": draw, "layer": layer}
                projection = Projection(found.vectors)
                batch.append(Ablated(self.name, f"{kind}, k {k}, {draw}", k, about, projection))
            yield batch
            draw += 1
