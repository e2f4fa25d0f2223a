"""An Optuna sampler of sets of ranks that never proposes a point twice.

What makes it so stands here: no point that is taken, points of trials whose worker died first,
random ones until enough are known, and all that is random from the seed and the numbers of finished
and running trials. Which point is worth trying then is a `Proposer`'s to say.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from somatlas.errors import InputError
from somatlas.searches.proposer import Proposer, SearchState
from somatlas.searches.samplers import make_proposer
from somatlas.searches.space import Ranks, SubsetSpace
from somatlas.searches.surrogate import span_features

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
STARTUP = 8  # trials drawn at random before the proposer is asked
VOID = "void"  # user attribute of a trial that was given back before it was evaluated


class SubsetSampler(BaseSampler):
    """Proposes unseen points of a space, from the finished trials.

    Everything random derives from `seed` and the numbers of finished and running trials, so that
    a search which was interrupted goes on exactly as it would have. Points of trials whose worker
    died come first. directions : (C, d) what the ranks stand for; unit vectors if not given.
    startup : trials that are drawn at random before any is proposed. The paper's code draws a
    quarter of its budget so; here it is a number of its own, as a share of the budget would change
    what an extended search began with. proposer : who proposes after that (default: the surrogate;
    of ordered tuples, as the paper's code, the Parzen estimator).
    """

    def __init__(
        self,
        space: SubsetSpace,
        seed: int,
        directions: NDArray[np.floating] | None = None,
        startup: int = STARTUP,
        proposer: Proposer | None = None,
    ) -> None:
        self.space, self.seed, self.startup = space, seed, startup
        self.proposer = proposer or make_proposer(None, ordered=space.ordered)
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
            state = SearchState(
                self.space, self.features, finished, running, frozenset(points), rng, study, trial
            )
            ranks = self._proposed(state)
        while ranks is None:
            drawn = self.space.draw(rng)
            ranks = None if drawn in points else drawn
        return dict(zip(search_space, ranks, strict=True))

    def sample_independent(
        self, study: Study, trial: FrozenTrial, name: str, distribution: BaseDistribution
    ) -> Any:
        raise ValueError(f"{name} is not part of the space of subsets")

    def _proposed(self, state: SearchState) -> Ranks | None:
        """The proposer's point; None, for a random one, where it has none or one that is taken."""
        proposed = self.proposer.propose(state)
        if proposed is None:
            return None
        ranks = self.space.point(proposed)
        if ranks is None:
            raise InputError(
                f"sampler {self.proposer.name!r} proposed {tuple(proposed)!r}, which is not "
                f"{self.space.k} different ranks from 0 to {self.space.candidates - 1}"
            )
        return None if ranks in state.taken else ranks
