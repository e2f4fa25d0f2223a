"""The methods that make directions, by name; other packages add theirs by entry points.

| method       | directions                                                                      |
|--------------|---------------------------------------------------------------------------------|
| som          | the map's neurons minus the harmless mean (the paper's)                         |
| points       | floor: random harmful representations minus the harmless mean                   |
| shifted      | floor: the mean difference plus Gaussian noise of the harmful covariance        |
| partition    | floor: means of a random partition of the harmful ones, minus the harmless mean |
| random       | isotropic Gaussian: what ablating any directions does                           |
| covariance   | Gaussian with the covariance of the harmful representations, centred            |
| sd           | the mean difference, alone                                                      |
| layers       | the mean differences of the layers nearest to the one that is cut               |
| pca          | principal axes of harmful minus the harmless mean, not centred again            |
| kmeans       | k-means centroids of harmful minus the harmless mean, most prompts first        |
| leace        | the span that LEACE (Belrose et al. 2306.03819) removes to hide the category    |
| leace-binary | the same to hide whether a prompt is harmful: one direction, which is SD        |

Ranks are in the methods' own order of importance; of the random ones it has no meaning. The floors
learn nothing but have what every other method has, the mean difference; `random` and `covariance`
lack it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from somatlas.errors import InputError
from somatlas.plugins import Registry, own_settings

if TYPE_CHECKING:
    from somatlas.directions.contract import DirectionMethod

_ROOM = "somatlas.directions"
METHODS: Registry[DirectionMethod] = Registry(
    "method",
    "somatlas.methods",
    f"{_ROOM}.contract:DirectionMethod",
    {
        "som": f"{_ROOM}.som_directions:SOMDirections",
        "points": f"{_ROOM}.drawn:PointDirections",
        "shifted": f"{_ROOM}.drawn:ShiftedDirections",
        "partition": f"{_ROOM}.drawn:PartitionDirections",
        "random": f"{_ROOM}.drawn:RandomDirections",
        "covariance": f"{_ROOM}.drawn:CovarianceDirections",
        "sd": f"{_ROOM}.learned:SingleDirection",
        "layers": f"{_ROOM}.learned:LayerDirections",
        "pca": f"{_ROOM}.learned:PCADirections",
        "kmeans": f"{_ROOM}.learned:KMeansDirections",
        "leace": f"{_ROOM}.leace:LEACEDirections",
        "leace-binary": f"{_ROOM}.leace:BinaryLEACEDirection",
    },
)


def built_in_methods() -> dict[str, type[DirectionMethod]]:
    """This package's own, in order: what a run does must not change with what else is installed."""
    return {name: METHODS.get(name) for name in METHODS.built_in}


def floors(among: Iterable[str] | None = None) -> dict[str, str]:
    """Name -> summary of the floors among some methods, or of this package's own.

    A name of a package that is not installed any more is no floor.
    """
    if among is None:
        return {name: cls.summary for name, cls in built_in_methods().items() if cls.is_floor}
    asked = set(among)
    known = [name for name in METHODS.names() if name in asked]
    return {name: cls.summary for name in known if (cls := METHODS.get(name)).is_floor}


def title_of(method: str) -> str:
    """How a card names a method; a name that is not known here stays as it is."""
    try:
        return METHODS.get(method).title
    except InputError:
        return method


def method_settings(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """A method's own settings, whole (`somatlas.plugins.own_settings`)."""
    cls = METHODS.get(name)
    return own_settings("method", name, cls, given, cls.filled_by_run())


def make_method(
    name: str, run: Mapping[str, Any], own: Mapping[str, Any] | None = None
) -> DirectionMethod:
    """A method, not fitted. run : `count`, `seed` and what else a run fills, of which the method
    takes what it has. own : its own settings.

    >>> make_method("kmeans", {"count": 3, "seed": 5, "grid": (4, 4)})
    KMeansDirections(count=3, seed=5)
    """
    cls = METHODS.get(name)
    filled = {parameter: run[parameter] for parameter in cls.filled_by_run() if parameter in run}
    return cls(**filled, **method_settings(name, own or {}))
