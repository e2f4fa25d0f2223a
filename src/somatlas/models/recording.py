"""What the parts of a decoder's blocks put out in one forward pass over a short prompt."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from somatlas.models.decoder import first_tensor, stream_input, stream_vectors


class Part(NamedTuple):
    """A module inside a container: its input, if that is of the stream's shape, and output, both
    (n, d) float64 on the CPU."""

    module: nn.Module
    source: Tensor | None
    output: Tensor


class Recorder:
    """Hooks on a container (a block, or the decoder up to its first block) and its parts.

    source, target : the container's input and output, (n, d) float64 on the CPU; the decoder has
    the first block's input as its target and no source. parts : by name, each child that ran and
    puts out vectors of the stream's shape, in the order in which they ended; of those named in
    `inside` their children. Where two put out the same (two norms with equal weights), the first.
    odd_shape : of a container's output that is no stream of vectors, else None.
    """

    def __init__(
        self,
        container: nn.Module,
        shape: tuple[int, int],
        inside: Collection[str] = (),
        first_block: nn.Module | None = None,
    ) -> None:
        self.container, self.shape, self.inside = container, shape, inside
        self.source = self.target = torch.zeros(shape, dtype=torch.float64)
        self.parts: dict[str, Part] = {}
        self.odd_shape: tuple[int, ...] | None = None
        self.open = True
        self.handles = [
            child.register_forward_hook(self._part(name), with_kwargs=True)
            for name, child in _children(container, inside)
        ]
        if first_block is None:
            self.handles.append(container.register_forward_hook(self._whole, with_kwargs=True))
        else:
            self.handles.append(
                first_block.register_forward_pre_hook(self._enter_blocks, with_kwargs=True)
            )

    def close(self) -> None:
        for handle in self.handles:
            handle.remove()

    def has_parts(self, name: str) -> bool:
        """Whether a part has parts of its own that are not looked at yet."""
        if name not in self.parts or name in self.inside:
            return False
        return any(True for _ in self.parts[name].module.children())

    def _vectors(self, value: Tensor | None) -> Tensor | None:
        vectors = stream_vectors(value, self.shape)
        return None if vectors is None else vectors.cpu().double()

    def _part(self, name: str) -> Any:
        def keep(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            vectors = self._vectors(first_tensor(output))
            if not self.open or vectors is None or name in self.parts:
                return
            if not any(part.output.equal(vectors) for part in self.parts.values()):
                source = self._vectors(stream_input(args, kwargs))
                self.parts[name] = Part(module, source, vectors)

        return keep

    def _whole(self, _module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        given = first_tensor(output)
        source, target = self._vectors(stream_input(args, kwargs)), self._vectors(given)
        if source is not None and target is not None:
            self.source, self.target = source, target
        elif given is not None:
            self.odd_shape = tuple(given.shape)

    def _enter_blocks(self, _module: nn.Module, args: Any, kwargs: Any) -> None:
        given = stream_input(args, kwargs)
        target = self._vectors(given)
        if target is not None:
            self.target = target
        elif given is not None:
            self.odd_shape = tuple(given.shape)
        self.open = False


def record(
    decoder: nn.Module,
    blocks: Sequence[nn.Module],
    ids: Tensor,
    shape: tuple[int, int],
    inside: Collection[str],
) -> tuple[Recorder, list[Recorder]]:
    """One forward pass over ids (1, n): what leads to the first block, and each block."""
    stem = Recorder(decoder, shape, first_block=blocks[0])
    recorders = [Recorder(block, shape, inside) for block in blocks]
    try:
        decoder(input_ids=ids, use_cache=False)
    finally:
        for recorder in (stem, *recorders):
            recorder.close()
    return stem, recorders


def _children(
    module: nn.Module, inside: Collection[str], prefix: str = ""
) -> Iterator[tuple[str, nn.Module]]:
    """Named children; of lists and of what is in `inside` theirs. Blocks' lists are left out."""
    for name, child in module.named_children():
        path = f"{prefix}{name}"
        if path in inside or (prefix and isinstance(child, nn.ModuleList)):
            yield from _children(child, inside, f"{path}.")
        elif not isinstance(child, nn.ModuleList):
            yield path, child
