"""Which directions to ablate together: Bayesian optimisation over subsets of ranks.

The tree-structured Parzen estimator (multivariate, grouped, a quarter of the trials random) is
Optuna's; what is here is the space: k distinct ranks out of the candidates, as a set in ascending
order (or, as the paper's code has it, an ordered tuple), none evaluated twice.
"""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from somatlas.errors import InputError
from somatlas.progress import Advance, ignore

Ranks = tuple[int, ...]
STUDY_NAME = "ranks"

_PROPOSALS = 32  # draws from the estimator before an unseen subset is drawn at random


@dataclass(frozen=True)
class SubsetSpace:
    """All ways to take k of the ranks 0 .. candidates - 1, as sets or as ordered tuples."""

    candidates: int
    k: int
    ordered: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.k <= self.candidates:
            raise InputError(
                f"k = {self.k} directions cannot be taken from {self.candidates} candidates: "
                "lower --k or use a larger grid"
            )

    @property
    def size(self) -> int:
        """How many points the space has."""
        count = math.perm if self.ordered else math.comb
        return count(self.candidates, self.k)

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        """The space as Optuna sees it, before the ranks of a trial are made distinct."""
        return {f"rank_{i}": IntDistribution(0, self.candidates - 1) for i in range(self.k)}

    def canonical(self, params: Mapping[str, Any]) -> Ranks | None:
        """The point that params name, or None where a rank occurs twice."""
        ranks = [int(params[name]) for name in self.distributions]
        if len(set(ranks)) < self.k:
            return None
        return tuple(ranks if self.ordered else sorted(ranks))

    def draw(self, rng: random.Random) -> Ranks:
        """A uniformly random point."""
        ranks = rng.sample(range(self.candidates), self.k)
        return tuple(ranks if self.ordered else sorted(ranks))


class SubsetSampler(BaseSampler):
    """Optuna sampler over a SubsetSpace that never proposes a point twice.

    Everything random derives from `seed` and the number of completed trials, so that a search
    which was interrupted goes on exactly as it would have.
    """

    def __init__(self, space: SubsetSpace, seed: int, n_random: int) -> None:
        self.space, self.seed, self.n_random = space, seed, n_random

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return self.space.distributions

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        states = (TrialState.COMPLETE, TrialState.RUNNING)
        trials = study.get_trials(deepcopy=False, states=states)
        others = [t for t in trials if t.number != trial.number]
        seen = {self.space.canonical(t.params) for t in others if t.params}
        completed = sum(t.state is TrialState.COMPLETE for t in others)
        ranks = None
        if completed >= self.n_random:
            ranks = self._propose(study, trial, completed, seen)
        if ranks is None:
            ranks = self._draw_unseen(completed, seen)
        return dict(zip(search_space, ranks, strict=True))

    def sample_independent(
        self, study: Study, trial: FrozenTrial, name: str, distribution: BaseDistribution
    ) -> Any:
        raise ValueError(f"{name} is not part of the space of subsets")

    def _propose(
        self, study: Study, trial: FrozenTrial, completed: int, seen: set[Ranks | None]
    ) -> Ranks | None:
        """The estimator's first proposal that is a new point, or None after many that are not."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            estimator = TPESampler(
                multivariate=True,
                group=True,
                n_startup_trials=1,
                seed=_mixed(self.seed, completed),
            )
        space = estimator.infer_relative_search_space(study, trial)
        for _ in range(_PROPOSALS):
            ranks = self.space.canonical(estimator.sample_relative(study, trial, space))
            if ranks is not None and ranks not in seen:
                return ranks
        return None

    def _draw_unseen(self, completed: int, seen: set[Ranks | None]) -> Ranks:
        rng = random.Random(_mixed(self.seed, completed))
        while (ranks := self.space.draw(rng)) in seen:
            pass
        return ranks


@dataclass(frozen=True)
class Outcome:
    """What one trial measured on the val prompts, as shares of their number."""

    asr: float
    refusal: float
    incoherent: float


@dataclass(frozen=True)
class Best:
    """The winning ranks and what they reached; ties go to the earlier trial."""

    ranks: Ranks
    outcome: Outcome
    trial: int


def open_study(path: Path, space: SubsetSpace, seed: int, trials: int) -> Study:
    """The study in an SQLite file, made where it is not there yet."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(
        study_name=STUDY_NAME,
        storage=f"sqlite:///{path}",
        direction="maximize",
        sampler=SubsetSampler(space, seed, n_random=max(1, trials // 4)),
        load_if_exists=True,
    )


def search(
    study: Study,
    space: SubsetSpace,
    evaluate: Callable[[Ranks], Outcome],
    trials: int,
    advance: Advance = ignore,
) -> Best:
    """Run trials until `trials` of them, or all points of the space, are complete.

    Trials that an interruption left running are given up and do not count.
    """
    for stale in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(stale.number, state=TrialState.FAIL)
    done = len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))
    advance(done)

    def objective(trial: Trial) -> float:
        for name in space.distributions:
            trial.suggest_int(name, 0, space.candidates - 1)
        ranks = space.canonical(trial.params)
        assert ranks is not None
        outcome = evaluate(ranks)
        trial.set_user_attr("refusal", outcome.refusal)
        trial.set_user_attr("incoherent", outcome.incoherent)
        return outcome.asr

    for _ in range(min(trials, space.size) - done):
        study.optimize(objective, n_trials=1)
        advance(1)
    return best(study, space)


def completed_trials(study: Study, space: SubsetSpace) -> list[tuple[Ranks, Outcome]]:
    """Ranks and outcome of every completed trial, in order."""
    rows = []
    for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        ranks = space.canonical(trial.params)
        assert ranks is not None
        assert trial.value is not None
        attributes = trial.user_attrs
        outcome = Outcome(trial.value, attributes["refusal"], attributes["incoherent"])
        rows.append((ranks, outcome))
    return rows


def best(study: Study, space: SubsetSpace) -> Best:
    """The completed trial of highest ASR; among equals the one of fewest refusals, then first."""
    rows = completed_trials(study, space)
    i = min(range(len(rows)), key=lambda i: (-rows[i][1].asr, rows[i][1].refusal, i))
    return Best(ranks=rows[i][0], outcome=rows[i][1], trial=i)


def _mixed(seed: int, completed: int) -> int:
    """One number from two, spread over 32 bits."""
    return random.Random(f"{seed}:{completed}").getrandbits(32)
