"""Whatever holds numbers, as one array."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from somatlas.arguments import described
from somatlas.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


def real_array(values: Any, what: str) -> NDArray[np.float64]:
    """Values of an array, a tensor of whatever device and dtype, or nested lists, in float64.

    what : they are, for the message. Raises InputError for anything but real numbers in rows of
    equal length, all of them there.
    """
    if np.ma.is_masked(values):
        raise InputError(f"{what} must be all there: some of the array's values are masked")
    try:
        if hasattr(values, "detach") and not values.is_complex():  # bfloat16 is unknown to numpy
            values = values.detach().cpu().double().numpy()
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError):  # ragged lists; sparse, meta, nested tensors
        own = "" if isinstance(values, list | tuple) else f", not {described(values)}"
        raise InputError(
            f"{what} must be an array of real numbers in rows of equal length{own}"
        ) from None
    if array.dtype.kind not in "biuf":
        held = described(values) if array.dtype.kind == "O" else f"of dtype {array.dtype}"
        raise InputError(f"{what} must be an array of real numbers, not {held}")
    return np.asarray(array, dtype=np.float64, order="C")  # torch takes no negative strides


def in_float64(tensor: Tensor) -> Tensor:
    """A tensor in float64: where it is, but on the CPU where its device (MPS) has no float64."""
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).double()
