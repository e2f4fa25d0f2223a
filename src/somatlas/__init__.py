"""somatlas: how a language model encodes refusal, as several related directions.

`SOM`, `DirectionSet` and `Projection` work on any vectors and import no language-model library.
"""

from somatlas.directions import DirectionSet
from somatlas.errors import InputError
from somatlas.interventions import Projection
from somatlas.som import SOM

__version__ = "0.1.0"
__all__ = ["SOM", "DirectionSet", "InputError", "Projection", "__version__"]
