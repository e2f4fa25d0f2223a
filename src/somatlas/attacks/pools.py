"""Directions that an attack takes its sets from: a method's, at a layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from somatlas.attacks.attack import Attempt
from somatlas.attacks.target import Target
from somatlas.directions.contract import Contrast, DirectionMethod
from somatlas.directions.methods import make_method


@dataclass(frozen=True)
class Pool:
    """Directions that sets are taken from. name : in an attempt's name. vectors : (r, d), the most
    important first. about : what they were made of."""

    name: str
    vectors: Tensor
    about: Mapping[str, Any] = field(default_factory=dict)


def pool_of(
    target: Target,
    method: str,
    layer: int,
    how: Mapping[str, Any],
    *,
    label: str = "",
) -> Pool:
    """The directions of a method (`somatlas.directions.methods`) at a layer.

    how : what a run would fill. label : in its name.
    """
    made, _ = fitted(target, method, layer, how)
    name = f"layer {layer}{f', {label}' if label else ''}"
    return Pool(name, made.directions_.vectors, {"layer": layer, "method": method, **how})


def fitted(
    target: Target, method: str, layer: int, how: Mapping[str, Any], under: Attempt | None = None
) -> tuple[DirectionMethod, Contrast]:
    """The method, and the representations that it was fitted on. under : an edit that they are made
    under."""
    contrast = target.contrast(layer, under)
    made = make_method(method, {"seed": target.seed, **how})
    made.fit(contrast.harmful, contrast.harmless, context=contrast.context)
    return made, contrast
