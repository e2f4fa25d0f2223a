"""A fleet of workers on a Ray cluster. One driver deals the pieces; workers come and go."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic

from somatlas.errors import InputError
from somatlas.fleet.dispatch import Dispatch, Part
from somatlas.fleet.ray_cluster import Cluster, installed, leave
from somatlas.fleet.ray_worker import Hello, Holding, RayWorker, TooLarge
from somatlas.fleet.work import C, I, R, S, SetUp
from somatlas.progress import Advance, ignore, note

_AHEAD = 4  # pieces a worker, from the first that is not handed out to the last that may be sent
_WAIT_S = 1.0  # between two looks at the clock
_STARTS = 4  # workers in a row that are lost before they are ready, after which none is started
_ROOM_S = 60.0  # seconds after which it is said that the cluster has no room


@dataclass(eq=False)
class _Hand:
    """A worker as the driver sees it. call : what it has been told and not answered. part : of
    which work; None while it begins. since : when it was told."""

    number: int
    actor: Any
    call: Any = None
    part: Part[Any] | None = None
    since: float = 0.0
    ready: bool = False
    place: str = ""
    said: bool = False


class RayFleet(Generic[C]):
    """Workers that each hold a context, made from a job (see `Holding`).

    job : plain values, sent to every worker. timeout_s : after which a worker that has not finished
    a piece is taken to hang: it is ended, and another does the piece.
    """

    def __init__(self, cluster: Cluster, holding: Holding, job: Any, timeout_s: float) -> None:
        self._ray = installed()
        self._cluster, self._holding, self.timeout_s = cluster, holding, timeout_s
        self._first: Hello | None = None  # of the workers that took up the job
        self._said: set[str] = set()
        self._job = self._ray.put(job)
        self._keys, self._numbers = itertools.count(), itertools.count(1)
        self._lost_starts = 0
        self._hands: list[_Hand] = []
        self._dealing = False

    @property
    def workers(self) -> int:
        """How many workers there are to be."""
        return self._cluster.workers

    @property
    def places(self) -> dict[int, str]:
        """Where the workers run that are ready: number -> host and process."""
        return {hand.number: hand.place for hand in self._hands if hand.ready}

    def begin(self, job: Any) -> None:
        """Give all workers another job; what they hold they may keep."""
        self._job, self._first = self._ray.put(job), None
        for hand in list(self._hands):
            if hand.call is None:
                self._tell_job(hand)
            else:  # in the middle of something that nobody waits for any more
                self._end(hand)

    def prepared(self, setup: SetUp[C, S, I, R], shared: S) -> _Sent[I, R]:
        return _Sent(self, f"{next(self._keys)}", setup, [self._ray.put(shared)])

    def close(self) -> None:
        """End all workers, and leave the cluster."""
        for hand in list(self._hands):
            self._end(hand)
        leave()

    def carry_out(
        self,
        dispatch: Dispatch[I, R],
        send: Callable[[Any, Sequence[I]], Any],
        advance: Advance,
        weigh: Callable[[Sequence[I]], int],
    ) -> Iterator[list[R]]:
        """Send out pieces until all are done. send : tells an actor of a part's items."""
        if self._dealing:
            raise RuntimeError("a fleet deals one kind of work at a time: take its results first")
        self._dealing = True
        try:
            while not dispatch.finished:
                self._fill()
                self._deal(dispatch, send)
                for hand in self._answered():
                    self._take(hand, dispatch, advance, weigh)
                self._end_the_late(dispatch)
                self._deal(dispatch, send)  # before the results are used, which may take a while
                yield from dispatch.ready()
        finally:
            self._dealing = False
            for hand in list(self._hands):
                if hand.part is not None:  # nobody waits for it
                    self._end(hand)

    def _fill(self) -> None:
        """Start workers until there are as many as there are to be."""
        while len(self._hands) < self.workers:
            made = self._ray.remote(RayWorker).options(
                num_cpus=1, num_gpus=self._cluster.gpus, max_restarts=0, max_task_retries=0
            )
            hand = _Hand(next(self._numbers), made.remote(self._holding))
            self._tell_job(hand)
            self._hands.append(hand)

    def _deal(self, dispatch: Dispatch[I, R], send: Callable[[Any, Sequence[I]], Any]) -> None:
        """Give those that are ready and idle a part each."""
        for hand in self._hands:
            if hand.ready and hand.call is None and (part := dispatch.next()) is not None:
                hand.part, hand.since = part, time.monotonic()
                hand.call = send(hand.actor, part.items)

    def _tell_job(self, hand: _Hand) -> None:
        hand.ready, hand.part, hand.since = False, None, time.monotonic()
        hand.call = hand.actor.begin.remote(self._job)

    def _answered(self) -> list[_Hand]:
        """Workers that have answered, after a wait where there is none."""
        waiting = {hand.call: hand for hand in self._hands if hand.call is not None}
        if not waiting:
            return []
        done, _ = self._ray.wait(list(waiting), num_returns=1, timeout=_WAIT_S)
        if done:  # and all others that have by now
            done, _ = self._ray.wait(list(waiting), num_returns=len(waiting), timeout=0)
        return [waiting[call] for call in done]

    def _take(
        self,
        hand: _Hand,
        dispatch: Dispatch[I, R],
        advance: Advance,
        weigh: Callable[[Sequence[I]], int],
    ) -> None:
        """What a worker has answered, or why it cannot."""
        part, errors = hand.part, self._ray.exceptions
        try:
            answer = self._ray.get(hand.call)
        except errors.RayTaskError as error:
            self._end(hand)
            raise _missing_package(error) or _cause(error) from None
        except (errors.ObjectStoreFullError, errors.OutOfDiskError) as error:
            raise InputError(
                f"Ray's object store is full, and so is the disk that it spills to ({_first(error)}"
                "): make room there, or take fewer --workers; what was finished is kept"
            ) from None
        except errors.RayError as error:
            self._end(hand)
            if (missing := _missing_package(error)) is not None:
                raise missing from None
            reason = _first(error)
            note(f"worker {hand.number}{hand.place} is lost ({reason}): another takes its place")
            if part is not None:
                dispatch.lost(part, reason)
            else:
                self._lost_before_ready(reason)
            return
        hand.call, hand.part = None, None
        if part is None:
            self._welcome(hand, answer)
        elif isinstance(answer, TooLarge):
            if not dispatch.too_large(part):
                raise InputError(
                    f"memory does not suffice for a single item ({answer.reason}): give workers "
                    "more, as by --gpus-per-worker or a smaller --batch-size"
                )
            note(f"worker {hand.number}{hand.place} ran out of memory: the piece is halved")
        else:
            self._pass_on(answer.notes)
            dispatch.done(part, answer.results)
            advance(weigh(part.items))

    def _welcome(self, hand: _Hand, hello: Hello) -> None:
        """A worker is ready; raises InputError where it holds something else than the others."""
        hand.ready, hand.place = True, f" ({hello.host}, process {hello.pid})"
        self._lost_starts = 0
        self._pass_on(hello.notes)
        self._first = self._first or hello
        if hello.holds != self._first.holds:
            raise InputError(
                f"the model on {hello.host} of the Ray cluster has other weights than the one on "
                f"{self._first.host}: put the same files on all nodes"
            )

    def _pass_on(self, notes: Sequence[str]) -> None:
        """Say what workers have to say, each once."""
        for text in dict.fromkeys(notes):
            if text not in self._said:
                self._said.add(text)
                note(text)

    def _lost_before_ready(self, reason: str) -> None:
        self._lost_starts += 1
        if self._lost_starts >= _STARTS and not any(hand.ready for hand in self._hands):
            raise InputError(
                f"{self._lost_starts} workers in a row ended before they were ready ({reason}): "
                "each must have memory for the model; see Ray's logs"
            )

    def _end_the_late(self, dispatch: Dispatch[I, R]) -> None:
        """End workers that hang, and say where the cluster has no room."""
        now = time.monotonic()
        for hand in list(self._hands):
            if hand.call is not None and now - hand.since > self.timeout_s:
                what = "become ready" if hand.part is None else "finished a piece"
                note(
                    f"worker {hand.number}{hand.place} has not {what} in {self.timeout_s:g} s "
                    "(--piece-timeout): it is ended, and another takes its place"
                )
                self._end(hand)
                reason = f"it took longer than {self.timeout_s:g} s"
                if hand.part is None:
                    self._lost_before_ready(reason)
                else:
                    dispatch.lost(hand.part, reason)
            elif not hand.ready and not hand.said and now - hand.since > _ROOM_S:
                hand.said = True
                note(f"worker {hand.number} is not ready: the model loads, or there is no room")

    def _end(self, hand: _Hand) -> None:
        self._hands.remove(hand)
        self._ray.kill(hand.actor)


class _Sent(Generic[I, R]):
    """Work that is sent to a fleet's workers. shared : a reference to what all pieces need, in a
    list, so that Ray does not follow it with every piece."""

    def __init__(self, fleet: RayFleet[Any], key: str, setup: Any, shared: list[Any]) -> None:
        self._fleet, self._key, self._setup, self._shared = fleet, key, setup, shared

    def each(
        self,
        pieces: Sequence[Sequence[I]],
        advance: Advance = ignore,
        weigh: Callable[[Sequence[I]], int] = len,
    ) -> Iterator[list[R]]:
        name = self._setup.__name__
        dispatch: Dispatch[I, R] = Dispatch(pieces, _AHEAD * self._fleet.workers, name)

        def send(actor: Any, items: Sequence[I]) -> Any:
            return actor.work.remote(self._key, self._setup, self._shared, items)

        return self._fleet.carry_out(dispatch, send, advance, weigh)

    def one(self, item: I) -> R:
        [[result]] = self.each([[item]])
        return result


def _cause(error: Any) -> Exception:
    """What a worker raised, with the worker's own traceback."""
    cause = error.cause
    if isinstance(cause, InputError):
        return cause
    if isinstance(cause, Exception):
        cause.add_note(str(error))
        return cause
    return RuntimeError(str(error))


def _missing_package(error: Exception) -> InputError | None:
    """What to tell of a package that a node lacks, where it is that."""
    found = re.search(r"No module named '([\w.]+)'", str(error))
    if found is None:
        return None
    name = found[1].split(".")[0]
    return InputError(
        f"a node of the Ray cluster lacks the package {name!r}: install it there, or bring it with "
        "the runtime environment of a job: ray job submit --runtime-env-json "
        """'{"pip": ["somatlas"]}' -- somatlas run ..."""
    )


def _first(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0].rstrip(".")[:300]
