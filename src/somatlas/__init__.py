"""somatlas: how a language model encodes refusal, as several related directions.

Names are imported when they are first used: `SOM`, `DirectionSet` and `Projection` work on any
vectors and bring no language-model library.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from somatlas.ablation import Projection
    from somatlas.directions.direction_set import DirectionSet
    from somatlas.directions.som import SOM
    from somatlas.errors import InputError

__version__ = "0.1.0"

_PLACES = {
    "DirectionSet": "somatlas.directions.direction_set",
    "InputError": "somatlas.errors",
    "Projection": "somatlas.ablation",
    "SOM": "somatlas.directions.som",
}

__all__ = ["SOM", "DirectionSet", "InputError", "Projection", "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_PLACES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
