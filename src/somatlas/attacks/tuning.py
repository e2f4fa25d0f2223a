"""Searches the settings of an edit, for little drift as well as for success."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna
from optuna.samplers import TPESampler
from optuna.trial import Trial, TrialState

from somatlas.attacks.attack import ROUND, Attempt, Rounds
from somatlas.attacks.set_search import LEAST_KL

_STARTUP = 8  # attempts before the sampler proposes
_REPEATS = 50  # proposals of what was tried already, until there seems to be nothing new


def tuned(
    suggest: Callable[[Trial], Attempt], first: Sequence[Mapping[str, Any]], seed: int
) -> Rounds:
    """Rounds of attempts whose settings Optuna's tree-structured Parzen estimator proposes, with
    ASR and log drift as its two objectives.

    suggest : makes an attempt of a trial's settings (`Trial.suggest_float` and the like), equal
    ones under equal names. first : settings that are tried before any is proposed. No attempt is
    made twice; there are no more where 50 proposals in a row were known.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = TPESampler(seed=seed, n_startup_trials=max(_STARTUP, len(first)))
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    for settings in first:
        study.enqueue_trial(dict(settings))
    known: set[str] = set()
    while True:
        batch: list[tuple[Trial, Attempt]] = []
        repeats = 0
        while len(batch) < ROUND and repeats < _REPEATS:
            trial = study.ask()
            attempt = suggest(trial)
            if attempt.name in known:
                study.tell(trial, state=TrialState.FAIL)
                repeats += 1
                continue
            known.add(attempt.name)
            batch.append((trial, attempt))
        if not batch:
            return
        outcomes = yield [attempt for _, attempt in batch]
        for (trial, _), outcome in zip(batch, outcomes, strict=True):
            study.tell(trial, (outcome.asr, math.log(max(outcome.kl, LEAST_KL))))
