"""What proposes the next point of a search: the contract, and what it is told."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from optuna.study import Study
from optuna.trial import FrozenTrial

from somatlas.searches.space import Ranks, SubsetSpace


@dataclass(frozen=True)
class SearchState:
    """A search so far, as it is when one more point is asked for.

    space : its points. features : (C, r) float64, what the ranks stand for: the candidates'
    directions, unit rows in an orthonormal basis of their span. finished : Optuna's trials of the
    rounds before; running : those of this round that stand before it. taken : their points. rng :
    everything random must come from it. study, trial : for a proposer that asks a sampler of
    Optuna's; the study has `finished` alone, and the trial.
    """

    space: SubsetSpace
    features: NDArray[np.float64]
    finished: Sequence[FrozenTrial]
    running: Sequence[FrozenTrial]
    taken: frozenset[Ranks]
    rng: random.Random
    study: Study
    trial: FrozenTrial

    @cached_property
    def tried(self) -> list[Ranks]:
        """The points of the finished trials."""
        points = [self.space.canonical(trial.params) for trial in self.finished]
        return [ranks for ranks in points if ranks is not None]

    @cached_property
    def pending(self) -> list[Ranks]:
        """The points of the running trials, of those that are known already."""
        points = [self.space.canonical(trial.params) for trial in self.running]
        return [ranks for ranks in points if ranks is not None]

    @cached_property
    def outcomes(self) -> list[float]:
        """One number for each of `tried`, the higher the better; of several objectives weighed at
        random, which draws from `rng`."""
        return scalar_outcomes(self.study, self.finished, self.rng)


class Proposer(ABC):
    """Says which point to try next.

    Parameters of `__init__` are its own settings, given as `--sampler-settings NAME=VALUE`. It may
    be asked by several processes, and again after an interruption: it keeps nothing between calls
    that the state does not have. name : in the registry. summary : one line.
    """

    name: ClassVar[str]
    summary: ClassVar[str]

    @abstractmethod
    def propose(self, state: SearchState) -> Ranks | None:
        """A point that is not taken; None leaves it to chance."""


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
