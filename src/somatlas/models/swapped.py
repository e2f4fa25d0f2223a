"""Other weights in a model for a while, the model's own kept aside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn


@contextmanager
def swapped(model: nn.Module, new: Mapping[int, Tensor]) -> Iterator[None]:
    """While active the parameters of these ids (Python's own of the object) are other tensors.

    Wherever a parameter is shared the other takes its place. Afterwards the same objects are back
    where they were, so the model is as before bit for bit, packed forms of its weights included.
    """
    others = {key: nn.Parameter(tensor, requires_grad=False) for key, tensor in new.items()}
    places = [
        (module, name, own)
        for module in model.modules()
        for name, own in module._parameters.items()
        if id(own) in others
    ]
    try:
        for module, name, own in places:
            module._parameters[name] = others[id(own)]
        yield
    finally:
        for module, name, own in places:
            module._parameters[name] = own
