"""Conditions: the edits that a model is tested under, each with a name and a title."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from somatlas.ablation import Projection
from somatlas.arguments import described
from somatlas.directions.direction_set import DirectionSet
from somatlas.errors import InputError
from somatlas.numerics.real_values import real_array

BASE = "base"
_TITLES = {"sd": "SD", "md": "MD"}

Edit = Projection | DirectionSet | Tensor | NDArray[Any] | None


def title(condition: str) -> str:
    """What tables call a condition."""
    return _TITLES.get(condition, condition)


def as_projections(conditions: Mapping[str, Edit]) -> dict[str, Projection | None]:
    """Each condition's edit, that of the model as it is (`base`) first whether named or not.

    A set of directions, or an array of them, one a row, is ablated one after another. Raises
    InputError for a name that cannot be a file's, or an edit that is none.
    """
    if not isinstance(conditions, Mapping):
        raise InputError(
            f"conditions must be edits by name, as {{'md': found.projection}}, not "
            f"{described(conditions)}"
        )
    found: dict[str, Projection | None] = {BASE: None}
    for name, edit in conditions.items():
        if not isinstance(name, str) or not name.strip() or not name.isprintable():
            raise InputError(f"condition {name!r} must be a plain name: it heads a column")
        if set(name) & set('/\\:*?"<>|') or name.startswith("."):
            raise InputError(f"condition {name!r} must be a plain name: it names a file of replies")
        found[name] = _as_projection(name, edit)
    if found[BASE] is not None:
        raise InputError("condition 'base' is the model as it is: give the edit another name")
    return found


def _as_projection(name: str, edit: Edit) -> Projection | None:
    if edit is None or isinstance(edit, Projection):
        return edit
    if isinstance(edit, DirectionSet):
        return Projection(edit.vectors)
    for attribute in ("projection", "directions_"):  # of a search, of a fitted method
        if hasattr(edit, attribute):
            raise InputError(
                f"condition {name!r} must be a Projection, a DirectionSet or an array (k, d), not "
                f"{described(edit)}: give its .{attribute}"
            )
    return Projection(np.atleast_2d(real_array(edit, f"the directions of condition {name!r}")))
