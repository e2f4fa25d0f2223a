"""A fleet without Ray: workers in this process that answer in a random order and get lost."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from somatlas.fleet.dispatch import Dispatch, Part
from somatlas.fleet.ray_cluster import Cluster
from somatlas.fleet.work import Work, checked
from somatlas.progress import Advance, ignore
from somatlas.runs.folder import Run
from somatlas.runs.workforce import job_of, take_up

LOST = 0.15  # of pieces, of each of which another worker makes what is lost


def sent(value: Any) -> Any:
    """As another process gets it."""
    return pickle.loads(pickle.dumps(value))


class ShuffledFleet:
    """Each worker holds what `make` gives.

    anew : a worker that is lost begins with another, as a process that takes its place does.
    """

    def __init__(
        self, make: Callable[[], Any], workers: int, seed: int, *, anew: bool = False
    ) -> None:
        self.contexts, self.make, self.anew = [make() for _ in range(workers)], make, anew
        self.workers, self.random, self.lost = workers, random.Random(seed), 0

    @classmethod
    def of_run(cls, run: Run, workers: int, seed: int) -> ShuffledFleet:
        """Each worker holds a run of its own, made from a job as a worker on Ray makes it."""
        job = job_of(run, Cluster("none", 1, workers, 0.0))
        return cls(lambda: take_up(sent(job), None), workers, seed)

    def prepared(self, setup: Callable[[Any, Any], Work[Any, Any]], shared: Any) -> _Shuffled:
        return _Shuffled(self, setup, shared)

    def close(self) -> None:
        """There is nobody to let go."""


class _Shuffled:
    def __init__(self, fleet: ShuffledFleet, setup: Any, shared: Any) -> None:
        self.fleet, self.setup, self.shared = fleet, setup, shared
        self.works: dict[int, Work[Any, Any]] = {}

    def each(
        self,
        pieces: Sequence[Sequence[Any]],
        advance: Advance = ignore,
        weigh: Callable[[Sequence[Any]], int] = len,
    ) -> Iterator[list[Any]]:
        fleet = self.fleet
        dispatch: Dispatch[Any, Any] = Dispatch(pieces, 3 * fleet.workers, self.setup.__name__)
        busy: dict[int, Part[Any]] = {}
        while not dispatch.finished:
            for worker in fleet.random.sample(range(fleet.workers), fleet.workers):
                if worker not in busy and (part := dispatch.next()) is not None:
                    busy[worker] = part
            worker = fleet.random.choice(sorted(busy))
            part = busy.pop(worker)
            if fleet.random.random() < LOST:
                self._lose(worker)
                dispatch.lost(Part(part.piece, part.start, part.items), "it was killed")
                continue
            if worker not in self.works:
                self.works[worker] = sent(self.setup)(fleet.contexts[worker], sent(self.shared))
            results = checked(self.works[worker](sent(part.items), ignore), part.items, "work")
            dispatch.done(part, sent(results))
            advance(weigh(part.items))
            yield from dispatch.ready()

    def one(self, item: Any) -> Any:
        [[result]] = self.each([[item]])
        return result

    def _lose(self, worker: int) -> None:
        self.fleet.lost += 1
        if self.fleet.anew:
            self.fleet.contexts[worker] = self.fleet.make()
            self.works.pop(worker, None)
