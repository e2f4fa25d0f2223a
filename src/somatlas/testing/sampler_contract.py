"""What every sampler must do, whichever points it prefers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path

from optuna.study import Study
from optuna.trial import TrialState

from somatlas.searches import (
    Outcome,
    Proposer,
    Ranks,
    SubsetSampler,
    SubsetSpace,
    finished_trials,
    in_lanes,
    open_storage,
    open_study,
    run_trials,
    storage_url,
)

_SETS, _TUPLES = SubsetSpace(5, 2), SubsetSpace(3, 2, ordered=True)
_MANY = SubsetSpace(12, 3)  # of so many sets none is drawn twice by chance
_STARTUP = 3


class SamplerContract:
    """Inherit it, write `make`, and let pytest find the class."""

    @abstractmethod
    def make(self) -> Proposer:
        """The proposer."""

    def study(self, path: Path, space: SubsetSpace, seed: int = 0, objectives: int = 1) -> Study:
        """A study in a file of its own, or the one that is there."""
        sampler = SubsetSampler(space, seed, startup=_STARTUP, proposer=self.make())
        directions = ["maximize", "minimize"][:objectives]
        return open_study(open_storage(storage_url(path)), "s", sampler, directions, {})  # type: ignore[arg-type]

    def test_it_says_what_it_is(self) -> None:
        cls = type(self.make())
        for text in (cls.name, cls.summary):
            assert text.strip() == text != ""
            assert "\n" not in text

    def test_every_point_is_tried_once_and_none_twice(self, tmp_path: Path) -> None:
        for space in (_SETS, _TUPLES):
            study = self.study(tmp_path / f"{space.ordered}", space)
            run_trials(study, space, in_lanes(_evaluate, 2), 100)
            tried = [ranks for ranks, _ in finished_trials(study, space)]
            assert len(tried) == len(set(tried)) == space.size

    def test_the_same_seed_gives_the_same_trials(self, tmp_path: Path) -> None:
        found = []
        for name in ("a", "b"):
            study = self.study(tmp_path / name, _MANY, seed=5)
            run_trials(study, _MANY, _evaluate, 8)
            found.append(finished_trials(study, _MANY))
        assert found[0] == found[1]

    def test_an_extended_search_equals_a_longer_one(self, tmp_path: Path) -> None:
        long = self.study(tmp_path / "long", _SETS)
        run_trials(long, _SETS, _evaluate, 7)
        for budget in (4, 7):  # another process each
            run_trials(self.study(tmp_path / "short", _SETS), _SETS, _evaluate, budget)
        short = finished_trials(self.study(tmp_path / "short", _SETS), _SETS)
        assert short == finished_trials(long, _SETS)

    def test_the_point_of_a_trial_that_was_lost_is_proposed_again(self, tmp_path: Path) -> None:
        study = self.study(tmp_path / "s", _SETS)
        run_trials(study, _SETS, _evaluate, 4)
        lost = study.ask(_SETS.distributions)
        point = _SETS.canonical(lost.params)
        study.tell(lost, state=TrialState.FAIL)
        assert _SETS.canonical(study.ask(_SETS.distributions).params) == point

    def test_two_objectives_and_pruned_trials_are_understood(self, tmp_path: Path) -> None:
        study = self.study(tmp_path / "two", _SETS, objectives=2)
        run_trials(study, _SETS, _evaluate, 5)
        assert len(finished_trials(study, _SETS)) == 5
        pruned = self.study(tmp_path / "pruned", _SETS)
        run_trials(pruned, _SETS, _pruning, 5)
        assert len(finished_trials(pruned, _SETS)) == 5


def _evaluate(points: Sequence[Ranks], _threshold: float) -> list[Outcome]:
    """A made-up objective with its best at ranks 1 and 3."""
    shares = [len({1, 3} & set(ranks)) / 2 for ranks in points]
    return [
        Outcome(share, 1 - share, 0.0, kl=share + sum(p))
        for share, p in zip(shares, points, strict=True)
    ]


def _pruning(points: Sequence[Ranks], threshold: float) -> list[Outcome]:
    """Every trial with rank 0 is ended early."""
    return [
        Outcome(0.1, 0.9, 0.0, pruned=True) if 0 in ranks else Outcome(0.5, 0.5, 0.0)
        for ranks in points
    ]
