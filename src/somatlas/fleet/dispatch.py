"""Which piece goes out next, what becomes of one that is lost, and results in order.

Plain bookkeeping, without processes or clocks: `somatlas.fleet.ray_fleet` moves it.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic

from somatlas.errors import InputError
from somatlas.fleet.work import I, R

LOSSES = 5  # of one piece, after which it is taken for the cause
_HALVED_FROM = 2  # losses from which on a piece is halved: too large a one is lost again and again


@dataclass(order=True)
class Part(Generic[I]):
    """Some of a piece's items: all of them, or what is left after halving. start : the first."""

    piece: int
    start: int
    items: Sequence[I] = field(compare=False)
    losses: int = field(compare=False, default=0)

    def halves(self) -> list[Part[I]]:
        """Itself in two."""
        middle = (len(self.items) + 1) // 2
        return [
            Part(self.piece, self.start, self.items[:middle], self.losses),
            Part(self.piece, self.start + middle, self.items[middle:], self.losses),
        ]


class Dispatch(Generic[I, R]):
    """The pieces of one piece of work.

    window : how far ahead of the first piece that is not handed out yet pieces may be sent, so that
    results that wait for it stay few. what : the work's name, for messages.
    """

    def __init__(self, pieces: Sequence[Sequence[I]], window: int, what: str) -> None:
        self._pieces, self._window, self._what = pieces, window, what
        self._sent = 0  # pieces that went out at least once
        self._handed = 0  # pieces whose results were handed out
        self._again: list[Part[I]] = []
        self._results: dict[int, dict[int, Sequence[R]]] = {}

    @property
    def finished(self) -> bool:
        """Whether every piece has been handed out."""
        return self._handed == len(self._pieces)

    def next(self) -> Part[I] | None:
        """What to send now: what was lost first; None where there is nothing to send."""
        if self._again:
            return heapq.heappop(self._again)
        if self._sent < min(len(self._pieces), self._handed + self._window):
            self._sent += 1
            return Part(self._sent - 1, 0, self._pieces[self._sent - 1])
        return None

    def done(self, part: Part[I], results: Sequence[R]) -> None:
        """A part has come back."""
        self._results.setdefault(part.piece, {})[part.start] = results

    def lost(self, part: Part[I], reason: str) -> None:
        """A part's worker is gone: it goes out again, in halves where that happened before.

        Raises InputError where it has been lost too often.
        """
        part.losses += 1
        if part.losses >= LOSSES:
            raise InputError(
                f"a piece of {self._what} was lost {part.losses} times, the last time because "
                f"{reason}: what was finished is kept; see the workers' memory and logs, and run "
                "the same command again"
            )
        if part.losses >= _HALVED_FROM and len(part.items) > 1:
            self._send_again(part.halves())
        else:
            self._send_again([part])

    def too_large(self, part: Part[I]) -> bool:
        """Memory did not suffice for a part: its halves go out. False where it is a single item."""
        if len(part.items) == 1:
            return False
        self._send_again(part.halves())
        return True

    def ready(self) -> Iterator[list[R]]:
        """The results of every piece whose turn it is."""
        while self._handed < self._sent:
            parts = self._results.get(self._handed, {})
            if sum(map(len, parts.values())) < len(self._pieces[self._handed]):
                return
            del self._results[self._handed]
            self._handed += 1
            yield [result for start in sorted(parts) for result in parts[start]]

    def _send_again(self, parts: Sequence[Part[I]]) -> None:
        for part in parts:
            heapq.heappush(self._again, part)
