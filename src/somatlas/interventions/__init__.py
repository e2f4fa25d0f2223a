"""Directions as one linear map, applied as forward hooks, as an edit of weights, as a LoRA."""

from somatlas.interventions.hooks import ablated
from somatlas.interventions.projection import Mode, Projection
from somatlas.interventions.rows import RowProjections
from somatlas.interventions.weights import OutputMap, edited_weights, low_rank_update

__all__ = [
    "Mode",
    "OutputMap",
    "Projection",
    "RowProjections",
    "ablated",
    "edited_weights",
    "low_rank_update",
]
