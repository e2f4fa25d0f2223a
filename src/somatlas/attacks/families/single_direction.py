"""The mean difference of every layer."""

from __future__ import annotations

from somatlas.ablation import Projection
from somatlas.attacks.attack import Ablated, Attack, Attempt, Rounds, in_rounds
from somatlas.attacks.target import Target


class SingleDirectionAttack(Attack):
    """Each layer's mean difference, the most promising layer by the screen first
    (`Target.screened_layers`; Arditi et al. 2406.11717)."""

    name = "sd"
    title = "single direction"
    summary = "the mean difference of each layer, the most promising layer first"

    def rounds(self, target: Target) -> Rounds:
        yield from in_rounds(single_directions(self.name, target))


def single_directions(family: str, target: Target) -> list[Attempt]:
    """The ablation of each layer's mean difference, in the order of the screen."""
    differences = target.differences()
    return [
        Ablated(
            family,
            f"layer {score.layer}",
            1,
            {"layer": score.layer, "refusal_score": score.refusal_score, "first_kl": score.kl},
            Projection(differences[score.layer][None]),
        )
        for score in target.screened_layers()
    ]
