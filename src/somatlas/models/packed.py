"""Linear layers whose weights are kept in the order that the CPU multiplies in.

With the few rows of a decoding step PyTorch spends half of a product on bringing the weights into
that order, every time again (measured on two cores, float32, 41 rows: 44 G multiply-adds a second,
81 with the weights packed once). The sums are the same to rounding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

_LARGEST = 2 * 2**30  # bytes of linear weights, which packing doubles
_ROWS = 64  # the packing is best for about so many; any number may be multiplied


class _Packed:
    """The packed form of one state of a weight; a copy of the module packs its own."""

    def __init__(self, weight: Tensor) -> None:
        self.state = self._state_of(weight)
        self.packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), _ROWS)

    def holds(self, weight: Tensor) -> bool:
        """Whether that is the weight, unchanged since."""
        return self._state_of(weight) == self.state

    @staticmethod
    def _state_of(weight: Tensor) -> tuple[int, int, torch.dtype]:
        return weight.data_ptr(), weight._version, weight.dtype

    def __deepcopy__(self, _memo: object) -> None:
        return None


class PackedLinear(nn.Linear):
    """A linear layer; once its weight is edited or replaced it works as nn.Linear does."""

    pack: _Packed | None = None

    def forward(self, input: Tensor) -> Tensor:  # the name is nn.Linear's
        if self.pack is None or not self.pack.holds(self.weight) or torch.is_grad_enabled():
            return functional.linear(input, self.weight, self.bias)
        result: Tensor = torch.ops.mkldnn._linear_pointwise(
            input, self.pack.packed, self.bias, "none", [], ""
        )
        return result


def pack_linears(model: nn.Module) -> None:
    """Pack the plain linear layers of a model on the CPU, where they are small enough."""
    layers = [
        module
        for module in model.modules()
        if type(module) is nn.Linear
        and module.weight.device.type == "cpu"
        and module.weight.dtype in (torch.float32, torch.bfloat16)
    ]
    size = sum(x.weight.numel() * x.weight.element_size() for x in layers)
    if size > _LARGEST or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return
    for module in layers:
        module.__class__ = PackedLinear
        vars(module)["pack"] = _Packed(module.weight)


def repack(model: nn.Module) -> None:
    """Pack anew what was edited and then restored: what was packed gives the same bits again."""
    for layer in [module for module in model.modules() if isinstance(module, PackedLinear)]:
        if layer.pack is not None and not layer.pack.holds(layer.weight):
            layer.pack = _Packed(layer.weight)
