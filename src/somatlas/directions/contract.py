"""What every method that makes directions is: parameters, `fit`, `directions_`.

    harmful (n, d), harmless (m, d)  -- fit -->  directions_, a DirectionSet

A new method derives from `DirectionMethod`, names itself and writes `make`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.util import find_spec
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from somatlas.arguments import check_whole
from somatlas.directions.direction_set import DirectionSet, Origin, mean_difference
from somatlas.directions.parameters import Parameterised
from somatlas.directions.som import SOM, Samples, as_samples
from somatlas.errors import InputError
from somatlas.plugins import parameters_of

COUNT = 16  # directions by default: the candidates of the paper's search (its 4x4 map)


@dataclass(frozen=True)
class Context:
    """What some methods need beside the vectors of two sides at one layer.

    categories : (n,) of the harmful prompts, empty texts where unknown. differences : layer -> SD
    (d,), of every layer that was kept. layer : the one that the vectors are of.
    """

    categories: Sequence[str] = ()
    differences: Mapping[int, Tensor] = field(default_factory=dict)
    layer: int | None = None


@dataclass(frozen=True)
class Contrast:
    """What a method makes directions of.

    harmful : (n, d) and harmless : (m, d), representations at the layer that is cut.
    """

    harmful: Tensor
    harmless: Tensor
    context: Context = Context()

    @classmethod
    def of(cls, X: Samples, Y: Samples, context: Context | None = None) -> Contrast:
        """In float64, from arrays or tensors.

        Raises InputError for other shapes, for values that are not finite, and for sides or a
        context that do not fit together.
        """
        harmful, harmless = (torch.from_numpy(as_samples(side)).contiguous() for side in (X, Y))
        context = context or Context()
        if harmful.shape[1] != harmless.shape[1]:
            raise InputError(
                f"harmful vectors have {harmful.shape[1]} values, harmless ones "
                f"{harmless.shape[1]}: give both of one layer of one model"
            )
        if len(context.categories) not in (0, len(harmful)):
            raise InputError(
                f"there are {len(context.categories)} categories of {len(harmful)} harmful "
                "vectors: give one each, or none"
            )
        return cls(harmful, harmless, context)

    @property
    def single(self) -> Tensor:
        """(d,) float32 SD at the layer that is cut: the context's, else made of the two sides."""
        known = self.context.differences
        if self.context.layer is not None and self.context.layer in known:
            return known[self.context.layer]
        return mean_difference(self.harmful, self.harmless)

    @cached_property
    def shifted(self) -> NDArray[np.float64]:
        """(n, d) float64 harmful representations minus the harmless mean."""
        return (self.harmful.double() - self.harmless.double().mean(dim=0)).numpy()

    def sampled(self, rows: NDArray[np.int64]) -> Contrast:
        """The same with some of the harmful representations.

        SD is made of them again at the layer that is cut; the other layers' would need their
        representations, and are left out.
        """
        categories = self.context.categories
        context = Context(
            categories=[categories[i] for i in rows.tolist()] if categories else (),
            layer=self.context.layer,
        )
        return Contrast(self.harmful[torch.from_numpy(rows)], self.harmless, context)


class DirectionMethod(Parameterised, ABC):
    """Makes directions of harmful and harmless representations.

    A subclass declares the class attributes below, stores the parameters of its `__init__` as given
    and writes `make`. `count` (how many directions) and `seed` are filled by a run where the
    constructor takes them, other parameters by the user: `--method-settings NAME=VALUE`.

    name : in the registry. title : for an export's card. summary : what the directions are, one
    line without a stop, as in "the directions are ...".
    is_floor : it learns nothing of the harmful cloud but where it is: others are measured by it.
    is_drawn : the seed changes the directions. makes_one : there is one direction.
    makes_axes : a vector's length is no distance. makes_map : there is `map_`, a fitted SOM, whose
    grid the run's `grid` is. needs_mean_only : of the harmless side the mean is all that is used,
    so that one row, the mean, does. is_sampled : it can be made again of some of the harmful
    vectors and no context but their categories.
    run_settings : parameters that a run fills from its settings of the same name.
    requires : module -> what to install, of packages that are not always there.

    Attributes
    ----------
    directions_ : DirectionSet in rank order, most important first where that has a meaning.
    n_features_in_ : d.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    summary: ClassVar[str]
    is_floor: ClassVar[bool] = False
    is_drawn: ClassVar[bool] = False
    makes_one: ClassVar[bool] = False
    makes_axes: ClassVar[bool] = False
    makes_map: ClassVar[bool] = False
    needs_mean_only: ClassVar[bool] = False
    is_sampled: ClassVar[bool] = True
    run_settings: ClassVar[tuple[str, ...]] = ()
    requires: ClassVar[Mapping[str, str]] = {}

    directions_: DirectionSet
    n_features_in_: int
    map_: SOM  # of methods that make one

    def fit(self, X: Samples, Y: Samples, *, context: Context | None = None) -> Self:
        """Make `directions_` of harmful X (n, d) and harmless Y (m, d), arrays or tensors.

        Raises InputError for parameters out of range, for vectors of other shapes or with values
        that are not finite, for a context that is needed and missing, or a package that is.
        """
        self.check_installed()
        self.check_parameters()
        contrast = Contrast.of(X, Y, context)
        made = self.make(contrast)
        if not isinstance(made, DirectionSet):
            made = DirectionSet.of_vectors(made)
        origin = Origin(self.name, layer=contrast.context.layer)
        single = DirectionSet.of_mean_difference(
            contrast.single, len(contrast.harmful), replace(origin, method="sd")
        )
        self.directions_ = replace(made, origin=origin, known_single=single)
        self.n_features_in_ = contrast.harmful.shape[1]
        return self

    @abstractmethod
    def make(self, contrast: Contrast) -> DirectionSet | Tensor | NDArray[Any]:
        """The directions (r, d) of float64 representations: a set, or vectors without neurons."""

    def partition(self, X: Samples) -> NDArray[np.int64] | None:
        """(n,) which part of the fitted method each row of X (n, d) falls into; None where it makes
        no parts."""
        return None

    def check_parameters(self) -> None:
        """Raise InputError for a parameter that is out of range. A subclass adds its own."""
        for name, least in (("count", 1), ("seed", 0)):
            check_whole(name, getattr(self, name, least), least)

    @classmethod
    def check_installed(cls) -> None:
        """Raise InputError where a package that the method needs is missing."""
        for module, install in cls.requires.items():
            if find_spec(module) is None:
                raise InputError(
                    f"method {cls.name!r} needs the package {module.replace('_', '-')}: install "
                    f"{install!r}"
                )

    def unfitted(self, seed: int) -> Self:
        """A new one with the same parameters, and another seed where it has one."""
        params = self.get_params()
        return type(self)(**params | ({"seed": seed} if "seed" in params else {}))

    @classmethod
    def filled_by_run(cls) -> list[str]:
        """The parameters that a run fills; the others are the method's own settings."""
        given = {"count", "seed", *cls.run_settings}
        return [name for name in parameters_of(cls) if name in given]
