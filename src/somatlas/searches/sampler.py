"""Which set of ranks to try next: an Optuna sampler that never proposes a point twice.

Sets: random ones first, then the one of highest expected improvement under a Gaussian process
(`somatlas.searches.surrogate`). Ordered tuples, as the paper's code searches them: Optuna's
tree-structured Parzen estimator, multivariate and grouped.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from somatlas.searches.space import Ranks, SubsetSpace
from somatlas.searches.surrogate import Surrogate, expected_improvement, span_features

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
STARTUP = 8  # trials drawn at random before the surrogate is asked
VOID = "void"  # user attribute of a trial that was given back before it was evaluated

_PARZEN_DRAWS = 32  # before an unseen point is drawn at random
_POOL = 4096  # points that expected improvement is computed of, where the space has more


class SubsetSampler(BaseSampler):
    """Proposes unseen points of a space, from the finished trials.

    Everything random derives from `seed` and the numbers of finished and running trials, so that
    a search which was interrupted goes on exactly as it would have. Points of trials whose worker
    died come first. directions : (C, d) what the ranks stand for; unit vectors if not given.
    startup : trials that are drawn at random before any is proposed. The paper's code draws a
    quarter of its budget so; here it is a number of its own, as a share of the budget would change
    what an extended search began with.
    """

    def __init__(
        self,
        space: SubsetSpace,
        seed: int,
        directions: NDArray[np.floating] | None = None,
        startup: int = STARTUP,
    ) -> None:
        self.space, self.seed, self.startup = space, seed, startup
        self.features = (
            np.eye(space.candidates)
            if directions is None
            else span_features(np.asarray(directions, dtype=np.float64))
        )

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return self.space.distributions

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        trials = [t for t in study.get_trials(deepcopy=False) if t.number != trial.number]
        finished = [t for t in trials if t.state in FINISHED]
        running = [t for t in trials if t.state is TrialState.RUNNING]
        taken = (self.space.canonical(t.params) for t in (*finished, *running))
        points = {ranks for ranks in taken if ranks is not None}
        rng = random.Random(f"{self.seed}:{len(finished)}:{len(running)}")
        lost = (
            self.space.canonical(t.params)
            for t in trials
            if t.state is TrialState.FAIL and VOID not in t.user_attrs
        )
        ranks = next((r for r in lost if r is not None and r not in points), None)
        if ranks is None and len(finished) >= self.startup:
            if self.space.ordered:
                ranks = self._by_parzen(study, trial, points, rng)
            else:
                ranks = self._by_surrogate(study, finished, running, points, rng)
        while ranks is None:
            drawn = self.space.draw(rng)
            ranks = None if drawn in points else drawn
        return dict(zip(search_space, ranks, strict=True))

    def sample_independent(
        self, study: Study, trial: FrozenTrial, name: str, distribution: BaseDistribution
    ) -> Any:
        raise ValueError(f"{name} is not part of the space of subsets")

    def _by_surrogate(
        self,
        study: Study,
        finished: Sequence[FrozenTrial],
        running: Sequence[FrozenTrial],
        points: set[Ranks],
        rng: random.Random,
    ) -> Ranks:
        """Highest expected improvement; running trials count as what the surrogate predicts."""
        tried = [_required(self.space.canonical(t.params)) for t in finished]
        outcomes = scalar_outcomes(study, finished, rng)
        pending = [r for t in running if (r := self.space.canonical(t.params)) is not None]
        if pending:
            outcomes += Surrogate(self.features, tried, outcomes).predict(pending)[0].tolist()
        best = tried[max(range(len(tried)), key=outcomes.__getitem__)]
        surrogate = Surrogate(self.features, [*tried, *pending], outcomes)
        pool = self._pool(points, best, rng)
        value = expected_improvement(*surrogate.predict(pool), max(outcomes))
        return pool[int(value.argmax())]

    def _pool(self, points: set[Ranks], best: Ranks, rng: random.Random) -> list[Ranks]:
        if self.space.size <= _POOL:
            every = list(self.space.points())
        else:
            every = [self.space.draw(rng) for _ in range(_POOL)]
            every += self.space.neighbours(best)
        unseen = sorted(set(every) - points)
        rng.shuffle(unseen)  # equal improvements are not to go to the lowest ranks
        return unseen

    def _by_parzen(
        self, study: Study, trial: FrozenTrial, points: set[Ranks], rng: random.Random
    ) -> Ranks | None:
        """The estimator's first proposal that is a new point, or None after many that are not."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            estimator = TPESampler(
                multivariate=True, group=True, n_startup_trials=1, seed=rng.getrandbits(32)
            )
        space = estimator.infer_relative_search_space(study, trial)
        for _ in range(_PARZEN_DRAWS):
            ranks = self.space.canonical(estimator.sample_relative(study, trial, space))
            if ranks is not None and ranks not in points:
                return ranks
        return None


def scalar_outcomes(
    study: Study, finished: Sequence[FrozenTrial], rng: random.Random
) -> list[float]:
    """One number a trial, the higher the better.

    With several objectives each call weighs them anew, at random, after scaling each to its range
    so far: over many calls the proposals spread along the front (ParEGO, Knowles 2006). A pruned
    trial counts as the bound that pruned it.
    """
    if len(study.directions) == 1:
        return [
            t.value if t.value is not None else max(t.intermediate_values.values())
            for t in finished
        ]
    values = np.array([t.values for t in finished])
    values *= [1.0 if d.name == "MAXIMIZE" else -1.0 for d in study.directions]
    low, high = values.min(axis=0), values.max(axis=0)
    scaled = (values - low) / np.where(high > low, high - low, 1.0)
    weights = np.array([rng.random() for _ in study.directions])
    weights /= weights.sum()
    weighted = scaled * weights
    return list(map(float, weighted.min(axis=1) + 0.05 * weighted.sum(axis=1)))


def _required(ranks: Ranks | None) -> Ranks:
    assert ranks is not None
    return ranks
