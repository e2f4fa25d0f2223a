"""What runs in a worker's process on a Ray cluster: it holds a context and does pieces of work."""

from __future__ import annotations

import os
import socket
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from somatlas.fleet.work import checked
from somatlas.progress import ignore, notes_caught

_KEPT = 6  # kinds of work that a worker stays set up for; each may hold tensors


@dataclass(frozen=True)
class Hello:
    """Where a worker runs, what it holds, in a word that equal ones share, and its notes."""

    host: str
    pid: int
    holds: str | None
    notes: list[str]


@dataclass(frozen=True)
class Done:
    """The results of a piece, and the notes that were made meanwhile."""

    results: list[Any]
    notes: list[str]


@dataclass(frozen=True)
class TooLarge:
    """What comes back in place of results where memory did not suffice."""

    reason: str


@dataclass(frozen=True)
class Holding:
    """What workers hold. take_up : (job, what was held before) -> what is held. name : of that, a
    word that is the same on all workers, or else they do not work alike; None where there is none.
    """

    take_up: Callable[[Any, Any], Any]
    name: Callable[[Any], str | None]


class RayWorker:
    """One worker: made once a process, told its job, then given pieces."""

    def __init__(self, holding: Holding) -> None:
        self._holding = holding
        self._context: Any = None
        self._works: OrderedDict[str, Callable[..., Sequence[Any]]] = OrderedDict()

    def begin(self, job: Any) -> Hello:
        """Hold what a job needs, such as its model."""
        self._works.clear()
        with notes_caught() as notes:
            self._context = self._holding.take_up(job, self._context)
            holds = self._holding.name(self._context)
        return Hello(socket.gethostname(), os.getpid(), holds, notes)

    def work(self, key: str, setup: Any, shared: Sequence[Any], items: Sequence[Any]) -> Any:
        """The results of a piece. shared : a reference in a list, which is followed once a key."""
        try:
            with notes_caught() as notes:
                if key not in self._works:
                    import ray

                    self._works[key] = setup(self._context, ray.get(shared[0]))
                    while len(self._works) > _KEPT:
                        self._works.popitem(last=False)
                self._works.move_to_end(key)
                results = self._works[key](items, ignore)
            return Done(checked(results, items, setup.__name__), notes)
        except MemoryError as error:
            return TooLarge(f"MemoryError {error}")
        except RuntimeError as error:  # of which torch.OutOfMemoryError is one, and MPS's error
            if "out of memory" not in str(error):
                raise
            self._works.pop(key, None)
            _empty_cache()
            return TooLarge(str(error).splitlines()[0])


def _empty_cache() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
