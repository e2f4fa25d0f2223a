"""Directions as one linear map, applied as forward hooks, as an edit of weights, as a LoRA."""

from somatlas.ablation.hooks import Ablation, Sites, ablated
from somatlas.ablation.layered import LayerProjections
from somatlas.ablation.norm_preserving import norm_preserving
from somatlas.ablation.projection import Mode, Projection
from somatlas.ablation.rows import RowProjections
from somatlas.ablation.weights import OutputMap, edited_places, edited_weights, low_rank_update

__all__ = [
    "Ablation",
    "LayerProjections",
    "Mode",
    "OutputMap",
    "Projection",
    "RowProjections",
    "Sites",
    "ablated",
    "edited_places",
    "edited_weights",
    "low_rank_update",
    "norm_preserving",
]
