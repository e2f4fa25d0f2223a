"""Which directions to ablate together: the space of sets, who proposes, the shared study."""

from somatlas.searches.loop import (
    Outcome,
    contenders,
    finished_trials,
    pareto_front,
    search,
    within,
)
from somatlas.searches.sampler import SubsetSampler
from somatlas.searches.space import Ranks, SubsetSpace
from somatlas.searches.study import open_storage, open_study, storage_error, storage_url

__all__ = [
    "Outcome",
    "Ranks",
    "SubsetSampler",
    "SubsetSpace",
    "contenders",
    "finished_trials",
    "open_storage",
    "open_study",
    "pareto_front",
    "search",
    "storage_error",
    "storage_url",
    "within",
]
