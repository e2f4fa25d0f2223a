"""Which directions to ablate together: the space of sets, who proposes, the study."""

from somatlas.searches.loop import (
    Outcome,
    contenders,
    finished_trials,
    in_lanes,
    pareto_front,
    run_trials,
    within,
)
from somatlas.searches.proposer import Proposer, SearchState
from somatlas.searches.sampler import SubsetSampler
from somatlas.searches.space import Ranks, SubsetSpace
from somatlas.searches.study import open_storage, open_study, storage_error, storage_url

__all__ = [
    "Outcome",
    "Proposer",
    "Ranks",
    "SearchState",
    "SubsetSampler",
    "SubsetSpace",
    "contenders",
    "finished_trials",
    "in_lanes",
    "open_storage",
    "open_study",
    "pareto_front",
    "run_trials",
    "storage_error",
    "storage_url",
    "within",
]
