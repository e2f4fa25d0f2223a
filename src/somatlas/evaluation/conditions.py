"""Conditions: the edits that a model is tested under, each with a name and a title."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from somatlas.ablation import Projection
from somatlas.directions.direction_set import DirectionSet
from somatlas.errors import InputError

BASE = "base"
_TITLES = {"sd": "SD", "md": "MD"}

Edit = Projection | DirectionSet | Tensor | NDArray[Any] | None


def title(condition: str) -> str:
    """What tables call a condition."""
    return _TITLES.get(condition, condition)


def as_projections(conditions: Mapping[str, Edit]) -> dict[str, Projection | None]:
    """Each condition's edit, that of the model as it is (`base`) first whether named or not.

    A set of directions, or an array of them, one a row, is ablated one after another. Raises
    InputError for a name that cannot be a file's.
    """
    found: dict[str, Projection | None] = {BASE: None}
    for name, edit in conditions.items():
        if not name or set(name) & set('/\\:*?"<>|') or name.startswith("."):
            raise InputError(f"condition {name!r} must be a plain name: it names a file of replies")
        found[name] = _as_projection(edit)
    if found[BASE] is not None:
        raise InputError("condition 'base' is the model as it is: give the edit another name")
    return found


def _as_projection(edit: Edit) -> Projection | None:
    if edit is None or isinstance(edit, Projection):
        return edit
    vectors = edit.vectors if isinstance(edit, DirectionSet) else torch.as_tensor(edit)
    return Projection(vectors[None] if vectors.ndim == 1 else vectors)
