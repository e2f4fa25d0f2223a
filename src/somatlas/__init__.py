"""somatlas: how a language model encodes refusal, as several related directions.

`SOM`, `DirectionSet` and `Projection` work on any vectors and import no language-model library.
"""

from somatlas.ablation import Projection
from somatlas.directions.direction_set import DirectionSet
from somatlas.directions.som import SOM
from somatlas.errors import InputError

__version__ = "0.1.0"
__all__ = ["SOM", "DirectionSet", "InputError", "Projection", "__version__"]
