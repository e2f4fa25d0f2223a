"""Every method and sampler of the package keeps its contract; one that breaks it is caught."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from somatlas.directions.contract import Contrast, DirectionMethod
from somatlas.directions.methods import built_in_methods, make_method
from somatlas.searches import Proposer, Ranks, SearchState
from somatlas.searches.samplers import SAMPLERS, make_proposer
from somatlas.testing import MethodContract, SamplerContract


def _of_method(name: str) -> type[MethodContract]:
    class Contract(MethodContract):
        def make(self, seed: int = 0) -> DirectionMethod:
            for module in built_in_methods()[name].requires:
                pytest.importorskip(module)
            run = {"count": 4, "seed": seed, "grid": (2, 2), "iterations": 300}
            return make_method(name, run)

    return Contract


def _of_sampler(name: str) -> type[SamplerContract]:
    class Contract(SamplerContract):
        def make(self) -> Proposer:
            return make_proposer(name)

    return Contract


# A class each, which pytest collects by its name.
globals().update({f"Test method {name}": _of_method(name) for name in built_in_methods()})
globals().update({f"Test sampler {name}": _of_sampler(name) for name in SAMPLERS.built_in})


class _Careless(DirectionMethod):
    """Draws without a seed."""

    name = title = summary = "careless"

    def __init__(self, count: int = 4) -> None:
        self.count = count

    def make(self, contrast: Contrast) -> Any:
        return np.random.default_rng().normal(size=(self.count, contrast.harmful.shape[1]))


def test_a_method_that_draws_without_its_seed_is_caught() -> None:
    class Contract(MethodContract):
        def make(self, seed: int = 0) -> DirectionMethod:
            return _Careless()

    with pytest.raises(AssertionError):
        Contract().test_the_seed_decides_what_is_drawn_and_nothing_else()


class _Stubborn(Proposer):
    """Draws by a generator of its own."""

    name = summary = "stubborn"

    def propose(self, state: SearchState) -> Ranks:
        rng = np.random.default_rng()
        return tuple(rng.permutation(state.space.candidates)[: state.space.k].tolist())


def test_a_sampler_that_draws_by_itself_is_caught(tmp_path: Any) -> None:
    class Contract(SamplerContract):
        def make(self) -> Proposer:
            return _Stubborn()

    with pytest.raises(AssertionError):
        Contract().test_the_same_seed_gives_the_same_trials(tmp_path)
