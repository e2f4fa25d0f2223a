"""What a map says of a model: its neurons, its stability, and what ablating does to the geometry.

Plain arrays in, plain dictionaries of numbers out, as they stand in a run's atlas.json.
"""

from somatlas.atlases.contrast import contrast_sides
from somatlas.atlases.knobs import cochran_q, one_knob_test
from somatlas.atlases.neurons import describe_neurons, map_errors
from somatlas.atlases.over_k import geometry_at, in_one_frame, relations
from somatlas.atlases.over_refusal import over_refusal, places_on_sd
from somatlas.atlases.plane import plane, space
from somatlas.atlases.stability import stability

__all__ = [
    "cochran_q",
    "contrast_sides",
    "describe_neurons",
    "geometry_at",
    "in_one_frame",
    "map_errors",
    "one_knob_test",
    "over_refusal",
    "places_on_sd",
    "plane",
    "relations",
    "space",
    "stability",
]
