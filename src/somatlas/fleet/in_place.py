"""The fleet of one process: pieces are carried out where they are asked for, one after another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Generic

from somatlas.fleet.work import C, I, R, S, SetUp, Work, checked
from somatlas.progress import Advance, ignore


class InPlace(Generic[C]):
    """One worker: this process. context : what it holds."""

    workers = 1

    def __init__(self, context: C) -> None:
        self._context = context

    def prepared(self, setup: SetUp[C, S, I, R], shared: S) -> _Here[I, R]:
        return _Here(setup.__name__, lambda: setup(self._context, shared))

    def close(self) -> None:
        """There is nobody to let go."""


class _Here(Generic[I, R]):
    def __init__(self, name: str, make: Callable[[], Work[I, R]]) -> None:
        self._name, self._make = name, make
        self._work: Work[I, R] | None = None

    def each(
        self,
        pieces: Sequence[Sequence[I]],
        advance: Advance = ignore,
        weigh: Callable[[Sequence[I]], int] = len,
    ) -> Iterator[list[R]]:
        for piece in pieces:
            if self._work is None:  # with the first piece: what is not asked for costs nothing
                self._work = self._make()
            yield checked(self._work(piece, advance), piece, self._name)

    def one(self, item: I) -> R:
        [[result]] = self.each([[item]])
        return result
