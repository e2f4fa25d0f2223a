"""The study that workers share: where it is kept, and how a worker claims trials in it.

Any number of processes on any number of machines run the same search on one storage. A trial is
claimed by asking for it; what makes the budget exact and the sets distinct is checked afterwards,
against the trials of all others, and a claim too many is given back. Workers send heartbeats: a
trial whose worker died is given up, and its place, and with it its set, is free again.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import socket
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import optuna
import psutil
from numpy.typing import NDArray
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, RDBStorage, fail_stale_trials
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from somatlas.errors import InputError
from somatlas.numerics.geometry import cosine_matrix
from somatlas.searches.rounds import FINISHED, PLACE, VOID, by_place, standing
from somatlas.searches.sampler import SubsetSampler
from somatlas.searches.space import Ranks, SubsetSpace

HEARTBEAT_S, GRACE_S = 10, 60
_NAMELESS_S = 20.0  # a claim names its worker within a second or two
_OPEN_ATTEMPTS = 8
_WORKER = "worker"  # user attribute: who evaluates the trial
_HELD = (*FINISHED, TrialState.RUNNING)


def storage_url(path: Path) -> str:
    """The URL of an SQLite file."""
    return f"sqlite:///{path}"


def without_password(url: str) -> str:
    """A storage's URL as it may be shown."""
    return re.sub(r"(://[^:@/]*):[^@]*@", r"\1:***@", url)


def open_storage(url: str, *, heartbeat_s: int = HEARTBEAT_S, grace_s: int = GRACE_S) -> RDBStorage:
    """Connect to a database by its SQLAlchemy URL, and make its tables where they are not there.

    Raises InputError where it cannot be reached, for a wrong password, or for a URL of no known
    kind; the password is in no message.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    options = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {}
    for attempt in itertools.count(1):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                return RDBStorage(
                    url,
                    engine_kwargs={"pool_pre_ping": True, **options},
                    heartbeat_interval=heartbeat_s,
                    grace_period=grace_s,
                )
        except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            reason = f"{error} {error.__cause__}"
            together = any(text in reason for text in ("already exists", "duplicate key", "UNIQUE"))
            if not together or attempt == _OPEN_ATTEMPTS:
                raise storage_error(url, error) from None
            time.sleep(0.2 * attempt)  # workers that start together make the tables together
        except (ImportError, ValueError) as error:
            lines = str(error).splitlines() or [type(error).__name__]
            hint = (
                "install 'somatlas[postgres]'" if isinstance(error, ImportError) else "see its URL"
            )
            raise InputError(
                f"storage {without_password(url)} cannot be used ({lines[0]}): {hint}"
            ) from None
    raise AssertionError("the loop ends by return or raise")


def storage_error(url: str, error: Exception) -> InputError:
    """What to tell of a database that fails, without its password."""
    lines = [line.strip() for line in str(error.__cause__ or error).splitlines() if line.strip()]
    reason = re.sub(r"^\([\w.]+\)\s*", "", lines[0]) if lines else type(error).__name__
    secret = re.search(r"://[^:@/]*:([^@]*)@", url)
    if secret and secret[1]:
        reason = reason.replace(secret[1], "***")
    return InputError(f"storage {without_password(url)} cannot be read or written ({reason})")


def open_study(
    storage: BaseStorage,
    name: str,
    sampler: BaseSampler,
    directions: Sequence[Literal["minimize", "maximize"]],
    settings: Mapping[str, Any],
) -> Study:
    """The study of that name, made where it is not there yet.

    settings : what decided it. Raises InputError, naming the first difference, where the storage
    holds a study of that name which other settings decided.
    """
    study = optuna.create_study(
        study_name=name,
        storage=storage,
        directions=list(directions),
        sampler=sampler,
        load_if_exists=True,
    )
    recorded = study.user_attrs.get("settings")
    if recorded is None:
        study.set_user_attr("settings", json.dumps(settings))
        return study
    was = json.loads(recorded)
    for key in sorted({*was, *settings}):
        if was.get(key) != settings.get(key):
            raise InputError(
                f"the storage holds a study {name!r} made with {key} = {was.get(key)!r}, not "
                f"{settings.get(key)!r}: give another --name"
            )
    return study


def agree_on_directions(study: Study, vectors: NDArray[np.floating]) -> None:
    """Raise InputError where the study's ranks are of other directions than vectors (r, d).

    The first worker leaves the cosines between its own. On another kind of machine rounding moves
    them little, but it may order neurons of equally many hits in another way.
    """
    cosines = cosine_matrix(vectors)[np.triu_indices(len(vectors), 1)]
    recorded = study.user_attrs.get("cosines")
    if recorded is None:
        study.set_user_attr("cosines", np.round(cosines, 2).tolist())
    elif np.shape(recorded) != cosines.shape or np.abs(recorded - cosines).max(initial=0) > 0.05:
        raise InputError(
            f"the study {study.study_name!r} ranks other directions than this run folder: copy "
            "the first machine's run folder here, or give another --name"
        )


class Claim(NamedTuple):
    """A trial to evaluate: Optuna's, its point, and which of the search's trials it is."""

    trial: Trial
    ranks: Ranks
    place: int


def claim(study: Study, space: SubsetSpace, budget: int) -> Claim | None:
    """The next trial, or None where the budget is spent or spoken for, or others must end first.

    Trial numbers are the storage's, one after another: of two that took the same place the lower
    one keeps it, and whoever has one of another's gives it back and asks again.
    """
    while True:
        now = standing(study.get_trials(deepcopy=False), space, round_size(study))
        if now.place >= min(budget, space.size) or not now.ready:
            return None
        with warnings.catch_warnings():  # of heartbeats, which `heartbeats` sends
            warnings.simplefilter("ignore", UserWarning)
            trial = study.ask(space.distributions)
        _ = trial.relative_params  # else Optuna asks no sampler where a rank has one value
        _beat(study, trial)
        trial.set_user_attr(_WORKER, _identity())
        ranks = space.canonical(trial.params)
        assert ranks is not None
        every = {t.number: t for t in study.get_trials(deepcopy=False)}
        place = int(every[trial.number].user_attrs[PLACE])
        reason = _objection(trial.number, place, every, budget)
        if reason is None:
            return Claim(trial, ranks, place)
        trial.set_user_attr(VOID, reason)
        study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)


def _objection(
    number: int, place: int, trials: Mapping[int, FrozenTrial], budget: int
) -> str | None:
    """Why a claim is to be given back, if it is."""
    if early := trials[number].user_attrs.get(VOID):
        return str(early)
    if place >= budget:
        return "budget"
    others = [t for n, t in trials.items() if n < number and t.state in _HELD]
    rivals = [t for t in others if VOID not in t.user_attrs and t.user_attrs.get(PLACE) == place]
    return "duplicate" if rivals else None


def round_size(study: Study) -> int:
    """The trials of a round, as the study's sampler has them."""
    assert isinstance(study.sampler, SubsetSampler)
    return study.sampler.round_size


def held(study: Study) -> list[FrozenTrial]:
    """The trials that are finished or running."""
    return study.get_trials(deepcopy=False, states=_HELD)


def finished(study: Study) -> list[FrozenTrial]:
    """The trials that count towards the budget, complete or pruned, by their places."""
    return by_place(study.get_trials(deepcopy=False, states=FINISHED))


class Mourner:
    """Gives up running trials whose worker is dead.

    Known are processes of this machine that are gone, workers whose heartbeat is older than the
    storage's grace period by the storage's own clock, and trials that this process has seen for a
    while without a worker's name: one that died while it claimed them.
    """

    def __init__(self, study: Study) -> None:
        self.study = study
        self._seen: dict[int, float] = {}

    def __call__(self) -> None:
        if _backend(self.study) is None:
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            fail_stale_trials(self.study)
        running = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        for trial in running:
            worker = trial.user_attrs.get(_WORKER)
            first = self._seen.setdefault(trial.number, time.monotonic())
            nameless = worker is None and time.monotonic() - first > _NAMELESS_S
            if nameless or (worker is not None and _is_gone(worker)):
                self.study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)


@contextmanager
def heartbeats(study: Study, trials: Sequence[Trial]) -> Iterator[None]:
    """While active, a thread tells the storage that the trials' worker is alive."""
    backend = _backend(study)
    if backend is None:
        yield
        return
    stop = threading.Event()
    interval = backend.get_heartbeat_interval()

    def beat() -> None:
        while not stop.wait(interval):
            for trial in trials:
                try:
                    _beat(study, trial)
                except (SQLAlchemyError, optuna.exceptions.StorageInternalError):
                    continue  # a heartbeat missed; the grace period is for that

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _beat(study: Study, trial: Trial) -> None:
    if (backend := _backend(study)) is not None:
        backend.record_heartbeat(trial._trial_id)


def _backend(study: Study) -> RDBStorage | None:
    """The study's database; None for one in memory, which no other process sees."""
    storage = study._storage
    backend = getattr(storage, "_backend", storage)  # Optuna wraps databases in a cache
    return backend if isinstance(backend, RDBStorage) else None


def _identity() -> str:
    """This process, told apart from a later one of the same number."""
    own = psutil.Process()
    return f"{socket.gethostname()} {own.pid} {own.create_time():.2f}"


def _is_gone(worker: str) -> bool:
    host, pid, created = worker.split(" ")
    if host != socket.gethostname():
        return False
    if int(pid) == os.getpid():
        return worker != _identity()
    try:
        process = psutil.Process(int(pid))
        return (
            abs(process.create_time() - float(created)) > 1
            or process.status() == psutil.STATUS_ZOMBIE
        )
    except psutil.NoSuchProcess:
        return True
