"""The attacks, by name; other packages add theirs by entry points.

| attack    | tries                                                               | needs | trials |
|-----------|---------------------------------------------------------------------|-------|--------|
| sd        | the mean difference of each layer                                   | A     | 4      |
| som       | k neurons of maps at several layers and of several grids            | A     | 224    |
| kmeans    | k centroids                                                         | A     | 32     |
| pca       | k principal axes                                                    | A     | 32     |
| leace     | k directions of the span that hides the category                    | A     | 32     |
| layers    | k mean differences of neighbouring layers                           | A     | 32     |
| layerwise | each block's own directions, by a strength of its own               | A     | 32     |
| iterated  | directions made again under the ablation so far                     | A     | 24     |
| partial   | one direction: weaker, in a window of layers, cleaned, norms kept   | A     | 32     |
| prefill   | replies opened with the model's own ablated words                   | A     | 8      |
| transfer  | the other model's directions                                        | C     | 8      |
| strip     | the difference to the other model taken back, then one direction    | C     | 4      |
| gradient  | k directions optimised against the refusal's opening                | A     | 20     |
| relearning | LoRA on a few of the model's own compliant replies                 | B     | 27     |
| points    | floor: k random harmful representations                             | A     | 32     |
| random    | floor: k random directions                                          | A     | 14     |

A: the weights. B: fine-tuning too. C: another model too. trials : a plain budget.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from somatlas.plugins import Registry, own_settings

if TYPE_CHECKING:
    from somatlas.attacks.attack import Attack

_ROOM = "somatlas.attacks"
_FAMILIES = f"{_ROOM}.families"
ATTACKS: Registry[Attack] = Registry(
    "attack",
    "somatlas.attacks",
    f"{_ROOM}.attack:Attack",
    {
        "sd": f"{_FAMILIES}.single_direction:SingleDirectionAttack",
        "som": f"{_FAMILIES}.searched_sets:MapAttack",
        "kmeans": f"{_FAMILIES}.searched_sets:KMeansAttack",
        "pca": f"{_FAMILIES}.searched_sets:PCAAttack",
        "leace": f"{_FAMILIES}.searched_sets:LEACEAttack",
        "layers": f"{_FAMILIES}.searched_sets:NeighboursAttack",
        "points": f"{_FAMILIES}.searched_sets:PointsAttack",
        "layerwise": f"{_FAMILIES}.layerwise:LayerwiseAttack",
        "iterated": f"{_FAMILIES}.iterated:IteratedAttack",
        "partial": f"{_FAMILIES}.partial_ablation:PartialAttack",
        "prefill": f"{_FAMILIES}.prefill:PrefillAttack",
        "transfer": f"{_FAMILIES}.other_model:TransferAttack",
        "strip": f"{_FAMILIES}.other_model:StripAttack",
        "gradient": f"{_FAMILIES}.optimised_directions:GradientAttack",
        "relearning": f"{_FAMILIES}.relearning:RelearningAttack",
        "random": f"{_FAMILIES}.random_directions:RandomAttack",
    },
)


def attack_settings(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """An attack's own settings, whole (`somatlas.plugins.own_settings`)."""
    return own_settings("attack", name, ATTACKS.get(name), given)


def make_attack(name: str, own: Mapping[str, Any] | None = None) -> Attack:
    """The attack of a name, with its own settings."""
    return ATTACKS.get(name)(**attack_settings(name, own or {}))
