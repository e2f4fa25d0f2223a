"""What a fleet is: who carries out work that is dealt in pieces, and in which order it comes back.

A stage says what is to be done with a *set-up*, a function of a module, and with plain pieces:

    def scores(run: Run, spec: Spec) -> Work[int, float]:     # once a worker
        drift = Drift(run.lm, spec.prompts, spec.replies)

        def work(layers: Sequence[int], advance: Advance) -> list[float]:   # once a piece
            ...
        return work

    with_scores = run.fleet.prepared(scores, spec)
    for found in with_scores.each(deal(layers, 4)):
        ...

The pieces are decided by the settings and never by the number of workers, each is computed by
itself, and results are handed out in the pieces' order. So neither the number of workers nor who
was faster, nor how often a piece was tried, can change a result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, Generic, Protocol, TypeVar

from somatlas.progress import Advance, ignore

C = TypeVar("C")
C_co = TypeVar("C_co", covariant=True)
S = TypeVar("S")
I = TypeVar("I")  # noqa: E741  # an item
R = TypeVar("R")

# Gives a result an item, in their order; tells `advance` of the items done, by weight.
Work = Callable[[Sequence[I], Advance], Sequence[R]]
# Makes work of what a worker holds and of what all pieces share; a module's function, so that it
# can be sent by its name.
SetUp = Callable[[C, S], Work[I, R]]


class Prepared(Protocol, Generic[I, R]):
    """Work that workers are set up for."""

    def each(
        self,
        pieces: Sequence[Sequence[I]],
        advance: Advance = ignore,
        weigh: Callable[[Sequence[I]], int] = len,
    ) -> Iterator[list[R]]:
        """The results of each piece, in the pieces' order, as soon as all before it are there.

        advance : told what is done, of a piece as much as `weigh` says.
        """
        ...

    def one(self, item: I) -> R:
        """The result of one item."""
        ...


class Fleet(Protocol[C_co]):
    """Who carries out work: one or more workers that each hold what it needs, such as a model."""

    @property
    def workers(self) -> int:
        """How many pieces can be in hand at a time."""
        ...

    def prepared(self, setup: SetUp[C_co, S, I, R], shared: S) -> Prepared[I, R]:
        """Workers set up for some work. shared : plain values that all pieces need."""
        ...

    def close(self) -> None:
        """Let the workers go."""
        ...


def deal(items: Sequence[I], size: int) -> list[list[I]]:
    """Items in pieces of `size`, the last one of what is left.

    >>> deal("abcde", 2)
    [['a', 'b'], ['c', 'd'], ['e']]
    """
    return [list(items[start : start + size]) for start in range(0, len(items), size)]


def flat(pieces: Iterable[Iterable[R]]) -> list[R]:
    """What pieces hold, one after another: what `deal` is undone by.

    >>> flat([["a", "b"], ["c"]])
    ['a', 'b', 'c']
    """
    return list(chain.from_iterable(pieces))


def checked(results: Sequence[Any], items: Sequence[Any], what: str) -> list[Any]:
    """The results as a list; an error of whoever wrote the work where they are not one an item."""
    if len(results) != len(items):
        raise RuntimeError(f"{what} gave {len(results)} results for {len(items)} items")
    return list(results)
