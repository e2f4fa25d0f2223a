"""Ablation by forward hooks: nothing is changed, and removing them restores the model exactly."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, Self

from torch import Tensor, nn

from somatlas.errors import InputError


class LinearMap(Protocol):
    """What a hook applies: a `Projection`, or `RowProjections`."""

    def apply(self, Y: Tensor, /) -> Tensor: ...

    def transposed(self) -> Self: ...


class Ablation(Protocol):
    """A linear map for each place that writes: a `Projection`, which is the same everywhere,
    `LayerProjections`, or `RowProjections` of either."""

    @property
    def d_model(self) -> int: ...

    def at(self, block: int | None, /) -> LinearMap | None: ...


Sites = Iterable[tuple[int | None, nn.Module]]


@contextmanager
def ablated(
    sites: Sites, ablation: Ablation | None, head: nn.Module | None = None
) -> Iterator[None]:
    """While active, the output of every site is mapped by what the ablation has for its place.

    sites : modules, each with the block that it is in, None for the embeddings'. An output may be a
    tensor or a tuple whose first item is the tensor that goes to the residual stream. head : an
    output head that is to read h -> P^T h, which is what editing the matrix that it shares with the
    embedding does to it. `ablation=None` changes nothing, so that callers need no second path.

    Raises InputError where one module is at several places that are to be mapped differently.
    """
    if ablation is None:
        yield
        return
    handles = []
    for module, own in _maps(sites, ablation).items():
        if own is not None:
            handles.append(module.register_forward_hook(_projecting(own)))
    read = ablation.at(None)
    if head is not None and read is not None:
        transposed = read.transposed()
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


def _projecting(own: LinearMap) -> Any:
    def project(_module: nn.Module, _args: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (own.apply(output[0]), *output[1:])
        return own.apply(output)

    return project


def _maps(sites: Sites, ablation: Ablation) -> dict[nn.Module, LinearMap | None]:
    """The map of each module, once."""
    maps: dict[nn.Module, LinearMap | None] = {}
    for block, module in sites:
        own = ablation.at(block)
        if maps.setdefault(module, own) is not own:
            raise InputError(
                f"a {type(module).__name__} writes in several blocks: it cannot be ablated "
                "differently in each of them"
            )
    return maps
