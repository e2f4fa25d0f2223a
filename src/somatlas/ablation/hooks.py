"""Ablation by forward hooks: nothing is changed, and removing them restores the model exactly."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, Self

from torch import Tensor, nn


class LinearMap(Protocol):
    """What a hook applies: a `Projection`, or `RowProjections`."""

    def apply(self, Y: Tensor, /) -> Tensor: ...

    def transposed(self) -> Self: ...


@contextmanager
def ablated(
    modules: Iterable[nn.Module], projection: LinearMap | None, head: nn.Module | None = None
) -> Iterator[None]:
    """While active, P is applied to the output of every module of `modules`.

    An output may be a tensor or a tuple whose first item is the tensor that goes to the residual
    stream. head : an output head that is to read h -> P^T h, which is what editing the matrix that
    it shares with the embedding does to it. `projection=None` changes nothing, so that callers
    need no second path.
    """
    if projection is None:
        yield
        return

    def project(_module: nn.Module, _args: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (projection.apply(output[0]), *output[1:])
        return projection.apply(output)

    handles = [module.register_forward_hook(project) for module in modules]
    if head is not None:
        transposed = projection.transposed()
        handles.append(
            head.register_forward_pre_hook(
                lambda _module, args: (transposed.apply(args[0]), *args[1:])
            )
        )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
