"""Directions as one linear map, applied as forward hooks, as an edit of weights, as a LoRA."""

from somatlas.ablation.hooks import ablated
from somatlas.ablation.projection import Mode, Projection
from somatlas.ablation.rows import RowProjections
from somatlas.ablation.weights import OutputMap, edited_weights, low_rank_update

__all__ = [
    "Mode",
    "OutputMap",
    "Projection",
    "RowProjections",
    "ablated",
    "edited_weights",
    "low_rank_update",
]
