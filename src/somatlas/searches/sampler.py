"""An Optuna sampler of sets of ranks that never proposes a point twice.

What makes it so stands here: no point that is taken, random ones until enough are known, what is
random from the seed and the trial's place, and nothing of what it must not know
(`somatlas.searches.rounds`). Which point is worth trying then is a `Proposer`'s to say.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState, create_trial

from somatlas.errors import InputError
from somatlas.searches.proposer import Proposer, SearchState
from somatlas.searches.rounds import PLACE, SIZE, Standing, standing
from somatlas.searches.samplers import make_proposer
from somatlas.searches.space import Ranks, SubsetSpace
from somatlas.searches.surrogate import span_features

STARTUP = 8  # trials drawn at random before the proposer is asked


class SubsetSampler(BaseSampler):
    """Proposes unseen points of a space, from the trials of earlier rounds.

    Everything random derives from `seed` and the trial's place, so that a search which was
    interrupted goes on exactly as it would have. directions : (C, d) what the ranks
    stand for; unit vectors if not given. startup : trials that are drawn at random before any is
    proposed. The paper's code draws a quarter of its budget so; here it is a number of its own, as
    a share of the budget would change what an extended search began with. proposer : who proposes
    after that (default: the surrogate; of ordered tuples, as the paper's code, the Parzen
    estimator). round_size : trials that are proposed from the same outcomes; as many can be
    evaluated at a time, in lanes and by workers.
    """

    def __init__(
        self,
        space: SubsetSpace,
        seed: int,
        directions: NDArray[np.floating] | None = None,
        startup: int = STARTUP,
        proposer: Proposer | None = None,
        round_size: int = SIZE,
    ) -> None:
        self.space, self.seed, self.startup = space, seed, startup
        self.round_size = round_size
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
        now = standing(trials, self.space, self.round_size)
        storage = study._storage  # as Optuna's own samplers do: the trial is not made yet
        storage.set_trial_user_attr(trial._trial_id, PLACE, now.place)
        ranks = None
        rng = random.Random(f"{self.seed}:{len(now.earlier)}:{len(now.beside)}")
        if len(now.earlier) >= self.startup:
            ranks = self._proposed(self._state(study, now, rng))
        while ranks is None:
            drawn = self.space.draw(rng)
            ranks = None if drawn in now.taken else drawn
        return dict(zip(search_space, ranks, strict=True))

    def sample_independent(
        self, study: Study, trial: FrozenTrial, name: str, distribution: BaseDistribution
    ) -> Any:
        raise ValueError(f"{name} is not part of the space of subsets")

    def _state(self, study: Study, now: Standing, rng: random.Random) -> SearchState:
        """What a proposer is told: of the study, too, only what the trial may know."""
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        known = optuna.create_study(directions=study.directions)
        known.add_trials([*now.earlier, create_trial(state=TrialState.RUNNING)])
        trial = known.get_trials(deepcopy=False)[-1]
        taken = frozenset(now.taken)
        return SearchState(
            self.space, self.features, now.earlier, now.beside, taken, rng, known, trial
        )

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
