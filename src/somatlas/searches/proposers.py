"""The proposers: by a surrogate, by a Parzen estimator, by chance."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import optuna
from optuna.samplers import TPESampler

from somatlas.searches.proposer import Proposer, SearchState
from somatlas.searches.space import Ranks
from somatlas.searches.surrogate import Surrogate, expected_improvement

_PARZEN_DRAWS = 32  # before an unseen point is drawn at random
_POOL = 4096  # points that expected improvement is computed of, where the space has more


class SurrogateProposer(Proposer):
    """Highest expected improvement under a Gaussian process over the sets' spans
    (`somatlas.searches.surrogate`); running trials count as what it predicts.

    Orders of one set span alike: of ordered tuples it tells none from another.
    """

    name = "surrogate"
    summary = "expected improvement under a Gaussian process over the spans"

    def propose(self, state: SearchState) -> Ranks:
        tried, outcomes, pending = state.tried, list(state.outcomes), state.pending
        if pending:
            outcomes += Surrogate(state.features, tried, outcomes).predict(pending)[0].tolist()
        best = tried[max(range(len(tried)), key=outcomes.__getitem__)]
        surrogate = Surrogate(state.features, [*tried, *pending], outcomes)
        pool = _pool(state, best)
        value = expected_improvement(*surrogate.predict(pool), max(outcomes))
        return pool[int(value.argmax())]


def _pool(state: SearchState, best: Ranks) -> Sequence[Ranks]:
    space = state.space
    if space.size <= _POOL:
        every = list(space.points())
    else:
        every = [space.draw(state.rng) for _ in range(_POOL)]
        every += space.neighbours(best)
    unseen = sorted(set(every) - state.taken)
    state.rng.shuffle(unseen)  # equal improvements are not to go to the lowest ranks
    return unseen


class ParzenProposer(Proposer):
    """Optuna's tree-structured Parzen estimator, multivariate and grouped, as the paper's code.

    Its first proposal that is a new point, or None after many that are not.
    """

    name = "parzen"
    summary = "Optuna's tree-structured Parzen estimator, as the paper"

    def propose(self, state: SearchState) -> Ranks | None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            estimator = TPESampler(
                multivariate=True, group=True, n_startup_trials=1, seed=state.rng.getrandbits(32)
            )
        space = estimator.infer_relative_search_space(state.study, state.trial)
        for _ in range(_PARZEN_DRAWS):
            params = estimator.sample_relative(state.study, state.trial, space)
            ranks = state.space.canonical(params)
            if ranks is not None and ranks not in state.taken:
                return ranks
        return None


class RandomProposer(Proposer):
    """Chance: what any other is to be compared with."""

    name = "random"
    summary = "unseen points at random"

    def propose(self, state: SearchState) -> None:
        return None
