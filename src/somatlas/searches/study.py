"""The study: where a search's trials are kept, so that an interrupted one goes on.

One process at a time asks for trials and tells their outcomes, however many evaluate them; that is
what makes the budget exact and the points distinct, on any database.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, RDBStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from somatlas.errors import InputError, without_password
from somatlas.numerics.geometry import cosine_matrix
from somatlas.searches.rounds import FINISHED, by_place
from somatlas.searches.sampler import SubsetSampler


def storage_url(path: Path) -> str:
    """The URL of an SQLite file."""
    return f"sqlite:///{path}"


def open_storage(url: str) -> RDBStorage:
    """Connect to a database by its SQLAlchemy URL, and make its tables where they are not there.

    Raises InputError where it cannot be reached, for a wrong password, or for a URL of no known
    kind; the password is in no message.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    options = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {}
    try:
        return RDBStorage(url, engine_kwargs={"pool_pre_ping": True, **options})
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        raise storage_error(url, error) from None
    except (ImportError, ValueError) as error:
        lines = str(error).splitlines() or [type(error).__name__]
        hint = "install 'somatlas[postgres]'" if isinstance(error, ImportError) else "see its URL"
        raise InputError(
            f"storage {without_password(url)} cannot be used ({lines[0]}): {hint}"
        ) from None


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

    Whoever begins it leaves the cosines between its own. On another kind of machine rounding moves
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


def round_size(study: Study) -> int:
    """The trials of a round, as the study's sampler has them."""
    assert isinstance(study.sampler, SubsetSampler)
    return study.sampler.round_size


def finished(study: Study) -> list[FrozenTrial]:
    """The trials that count towards the budget, complete or pruned, by their places."""
    return by_place(study.get_trials(deepcopy=False, states=FINISHED))


def give_up_unfinished(study: Study) -> None:
    """Give up the trials of a driver that was interrupted: their places are free again."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
