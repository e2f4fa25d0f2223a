"""The search over subsets: its space, its budget, its memory."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from somatlas import InputError
from somatlas.errors import without_password
from somatlas.searches import (
    Outcome,
    Ranks,
    SubsetSampler,
    SubsetSpace,
    contenders,
    finished_trials,
    in_lanes,
    open_storage,
    open_study,
    pareto_front,
    run_trials,
    storage_url,
    within,
)
from somatlas.searches.study import agree_on_directions
from somatlas.searches.watch import RefusalWatch

SPACE = SubsetSpace(candidates=8, k=3)
# What 0.1.0 proposed in four lanes, in trials 0 to 15 of seed 0.
BEFORE = [
    *((3, 4, 5), (0, 5, 6), (3, 4, 7), (1, 2, 3), (1, 5, 6), (2, 4, 5), (0, 3, 5), (4, 6, 7)),
    *((1, 4, 6), (1, 6, 7), (1, 2, 6), (1, 4, 7), (0, 1, 4), (3, 4, 6), (0, 1, 6), (2, 4, 6)),
]


def value(ranks: Ranks) -> Outcome:
    """A made-up objective with its best at (1, 4, 6)."""
    asr = len({1, 4, 6} & set(ranks)) / 3
    return Outcome(asr, refusal=1 - asr, incoherent=0.0)


def values(points: Sequence[Ranks], _threshold: float) -> list[Outcome]:
    return [value(ranks) for ranks in points]


def study_in(
    path: Path, seed: int = 0, space: SubsetSpace = SPACE, **settings: object
) -> optuna.Study:
    storage = open_storage(storage_url(path))
    return open_study(storage, "s", SubsetSampler(space, seed), ["maximize"], settings)


def run(
    path: Path, trials: int, seed: int = 0, space: SubsetSpace = SPACE, lanes: int = 1
) -> Ranks:
    study = study_in(path, seed, space)
    run_trials(study, space, in_lanes(values, lanes), trials)
    return contenders(finished_trials(study, space))[0][0]


def trials_of(path: Path, space: SubsetSpace = SPACE) -> list[Ranks]:
    return [ranks for ranks, _ in finished_trials(study_in(path, 0, space), space)]


@given(k=st.integers(1, 6), extra=st.integers(0, 6), ordered=st.booleans(), seed=st.integers())
def test_points_are_distinct_ranks_in_canonical_order(
    k: int, extra: int, ordered: bool, seed: int
) -> None:
    space = SubsetSpace(k + extra, k, ordered)
    ranks = space.draw(random.Random(seed))
    assert len(set(ranks)) == k
    assert set(ranks) <= set(range(k + extra))
    if not ordered:
        assert list(ranks) == sorted(ranks)
    assert space.canonical(dict(zip(space.distributions, ranks, strict=True))) == ranks
    for other in space.neighbours(ranks):
        assert len(set(other) - set(ranks)) == 1
        assert len(set(other)) == k


@pytest.mark.parametrize("ordered", [False, True])
def test_the_space_counts_its_points(ordered: bool) -> None:
    space = SubsetSpace(6, 3, ordered)
    points = set(space.points())
    assert len(points) == space.size == (120 if ordered else 20)
    assert SubsetSpace(16, 3).size == 560


@pytest.mark.parametrize("lanes", [1, 3])
def test_equal_subsets_are_never_evaluated_twice_and_the_whole_space_is_covered(
    tmp_path: Path, lanes: int
) -> None:
    space = SubsetSpace(5, 2)
    best = run(tmp_path / "s.db", trials=50, space=space, lanes=lanes)
    ranks = trials_of(tmp_path / "s.db", space)
    assert len(ranks) == len(set(ranks)) == space.size
    assert best == (1, 4)


def test_ordered_search_tells_orders_apart(tmp_path: Path) -> None:
    space = SubsetSpace(3, 2, ordered=True)
    run(tmp_path / "s.db", trials=50, space=space)
    assert len(set(trials_of(tmp_path / "s.db", space))) == 6


def test_the_sampler_finds_the_best_point_sooner_than_chance(tmp_path: Path) -> None:
    """Of 56 subsets random search needs 28 trials on average; the median of 5 seeds beats half."""
    needed = []
    for seed in range(5):
        run(tmp_path / f"{seed}.db", trials=24, seed=seed)
        ranks = trials_of(tmp_path / f"{seed}.db")
        needed.append(ranks.index((1, 4, 6)) if (1, 4, 6) in ranks else 99)
    assert sorted(needed)[2] < 14


def test_directions_that_span_alike_are_taken_for_alike(tmp_path: Path) -> None:
    """Of 12 candidates 6 are near copies of the others: what one did tells of its copy."""
    rng = np.random.default_rng(0)
    half = rng.normal(size=(6, 40))
    directions = np.concatenate([half, half + 0.01 * rng.normal(size=half.shape)])
    space = SubsetSpace(12, 2)
    sampler = SubsetSampler(space, 0, directions)
    worth = rng.normal(size=6)

    def evaluate(points: Sequence[Ranks], _threshold: float) -> list[Outcome]:
        return [Outcome(sum(worth[r % 6] for r in set(p)), 0.0, 0.0) for p in points]

    study = open_study(open_storage(storage_url(tmp_path / "s")), "s", sampler, ["maximize"], {})
    run_trials(study, space, evaluate, 30)
    spans = [frozenset(r % 6 for r in ranks) for ranks, _ in finished_trials(study, space)]
    assert len(set(spans)) >= 12  # of 21; with independent candidates repeats abound
    top_two = frozenset(np.argsort(worth)[-2:].tolist())
    assert top_two in spans[:24]


def test_the_same_seed_gives_the_same_trials_and_another_others(tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        run(tmp_path / name, trials=12, seed=seed)
    assert trials_of(tmp_path / "a") == trials_of(tmp_path / "b")
    assert trials_of(tmp_path / "a") != trials_of(tmp_path / "c")


@pytest.mark.parametrize("ordered", [False, True])
def test_lanes_do_not_change_a_search(tmp_path: Path, ordered: bool) -> None:
    space = SubsetSpace(8, 3, ordered)
    thresholds: dict[int, dict[Ranks, float]] = {}

    def trials(lanes: int) -> list[tuple[Ranks, Outcome]]:
        def evaluate(points: Sequence[Ranks], threshold: float) -> list[Outcome]:
            thresholds.setdefault(lanes, {}).update(dict.fromkeys(points, threshold))
            return values(points, threshold)

        storage = open_storage(storage_url(tmp_path / f"{lanes}"))
        study = open_study(storage, "s", SubsetSampler(space, 0, startup=4), ["maximize"], {})
        run_trials(study, space, in_lanes(evaluate, lanes), 14)
        return finished_trials(study, space)

    alone = trials(4)
    assert len(alone) == 14
    for lanes in (1, 3, 9):
        assert trials(lanes) == alone
        assert thresholds[lanes] == thresholds[4]


def test_the_places_of_a_search_are_those_that_it_gave_before_there_were_rounds(
    tmp_path: Path,
) -> None:
    """Four lanes, one worker: trials 0 to 15 as version 0.1.0 made them."""
    run(tmp_path / "s", trials=16, lanes=4)
    assert trials_of(tmp_path / "s") == BEFORE


def test_a_search_that_is_extended_equals_one_that_was_longer_from_the_start(
    tmp_path: Path,
) -> None:
    run(tmp_path / "long", trials=20)
    run(tmp_path / "short", trials=9)
    assert len(trials_of(tmp_path / "short")) == 9
    run(tmp_path / "short", trials=20)
    assert trials_of(tmp_path / "short") == trials_of(tmp_path / "long")


@pytest.mark.parametrize("ordered", [False, True])
def test_the_first_trials_are_random_and_their_number_is_no_share_of_the_budget(
    tmp_path: Path, ordered: bool
) -> None:
    """The paper's code draws the first quarter of its budget at random: here 6 of 24."""
    space = SubsetSpace(candidates=10, k=3, ordered=ordered)

    def trials(name: str, startup: int, *budgets: int) -> list[Ranks]:
        sampler = SubsetSampler(space, 0, startup=startup)
        storage = open_storage(storage_url(tmp_path / name))
        study = open_study(storage, "s", sampler, ["maximize"], {})
        for budget in budgets:
            run_trials(study, space, values, budget)
        return [ranks for ranks, _ in finished_trials(study, space)]

    proposed, chance = trials("a", 6, 24), trials("b", 24, 24)
    assert proposed[:6] == chance[:6]
    assert proposed[6:] != chance[6:]
    best = [max(value(ranks).asr for ranks in some) for some in (proposed[6:], chance[6:])]
    assert best[0] >= best[1]
    assert trials("c", 6, 10, 24) == proposed  # extended


@pytest.mark.parametrize("lanes", [1, 2])
@pytest.mark.parametrize("stop_after", [1, 5, 7])
def test_an_interrupted_search_goes_on_as_if_it_had_not_been(
    tmp_path: Path, stop_after: int, lanes: int
) -> None:
    run(tmp_path / "whole", trials=16, lanes=lanes)
    calls = 0

    def interrupted(points: Sequence[Ranks], threshold: float) -> list[Outcome]:
        nonlocal calls
        calls += 1
        if calls > stop_after:
            raise KeyboardInterrupt
        return values(points, threshold)

    with pytest.raises(KeyboardInterrupt):
        run_trials(study_in(tmp_path / "cut"), SPACE, in_lanes(interrupted, lanes), 16)
    assert len(trials_of(tmp_path / "cut")) == min(stop_after * lanes, 16)
    run(tmp_path / "cut", trials=16, lanes=lanes)
    assert trials_of(tmp_path / "cut") == trials_of(tmp_path / "whole")


def test_a_second_command_on_one_study_stops_the_first_with_a_sentence(tmp_path: Path) -> None:
    first = study_in(tmp_path / "s")

    def evaluate(points: Sequence[Ranks], threshold: float) -> list[Outcome]:
        run(tmp_path / "s", trials=16)  # another process begins, and ends before this one tells
        return values(points, threshold)

    with pytest.raises(InputError, match="is being searched by another command"):
        run_trials(first, SPACE, evaluate, 16)
    run(tmp_path / "whole", trials=16)
    assert trials_of(tmp_path / "s") == trials_of(tmp_path / "whole")


def test_a_clock_that_jumps_loses_no_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    run(tmp_path / "steady", trials=12)
    real, jumps = time.time, iter([0, 3600, -86400] * 10_000)
    monkeypatch.setattr(time, "time", lambda: real() + next(jumps))
    run(tmp_path / "jumping", trials=12)
    assert trials_of(tmp_path / "jumping") == trials_of(tmp_path / "steady")


def test_a_study_of_other_settings_is_refused(tmp_path: Path) -> None:
    study_in(tmp_path / "s", k=3, model="a")
    with pytest.raises(InputError, match=r"made with k = 3, not 4: give another --name"):
        study_in(tmp_path / "s", k=4, model="a")


def test_optunas_own_tools_open_the_study(tmp_path: Path) -> None:
    run(tmp_path / "s", trials=6)
    study = optuna.load_study(study_name="s", storage=f"sqlite:///{tmp_path / 's'}")
    assert len(study.trials) == 6
    assert study.best_value == max(value(r).asr for r in trials_of(tmp_path / "s"))


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sqlite:////no/such/folder/x.db", "unable to open database file"),
        ("nonsense", "Could not parse SQLAlchemy URL"),
        ("postgresql+psycopg://me:hunter2@127.0.0.1:1/x", "me:***@127.0.0.1:1/x"),
    ],
)
def test_storage_that_cannot_be_reached(url: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        open_storage(url)
    assert said in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_passwords_are_not_shown() -> None:
    assert without_password("postgresql://me:pa%40ss@db:5432/x") == "postgresql://me:***@db:5432/x"
    assert without_password("sqlite:///study.db") == "sqlite:///study.db"


ROWS = [
    ((0,), Outcome(0.4, 0.5, 0.1, kl=0.2)),
    ((1,), Outcome(0.4, 0.2, 0.4, kl=0.1)),
    ((2,), Outcome(0.9, 0.1, 0.0, pruned=True)),
    ((3,), Outcome(0.1, 0.9, 0.0, kl=0.01)),
    ((4,), Outcome(0.8, 0.2, 0.0, kl=0.9)),
    ((5,), Outcome(0.05, 0.9, 0.0, kl=0.05)),
    ((6,), Outcome(0.0, 1.0, 0.0, kl=0.03)),
]


def test_contenders_are_the_best_whole_trials_ties_by_fewer_refusals() -> None:
    assert [ranks for ranks, _ in contenders(ROWS)] == [(4,), (1,), (0,), (3,)]


def test_a_study_whose_ranks_are_of_other_directions_is_not_gone_on_with(
    tmp_path: Path,
) -> None:
    study = open_study(
        open_storage(storage_url(tmp_path / "s.db")),
        "s",
        SubsetSampler(SubsetSpace(5, 2), 0),
        ["maximize"],
        {},
    )
    vectors = np.random.default_rng(0).normal(size=(5, 40))
    agree_on_directions(study, vectors)
    agree_on_directions(study, 3 * vectors + 1e-3)  # the same but for rounding
    for other in (vectors[[1, 0, 2, 3, 4]], vectors[:4]):
        with pytest.raises(InputError, match="ranks other directions"):
            agree_on_directions(study, other)


def test_contenders_below_a_kl_or_the_gentlest_of_all() -> None:
    assert [ranks for ranks, _ in contenders(ROWS, max_kl=0.15)] == [(1,), (3,), (5,), (6,)]
    assert [ranks for ranks, _ in contenders(ROWS, max_kl=0.001)] == [(3,)]
    assert len(within(ROWS, 0.15)) == 4
    assert within(ROWS, 0.001) == []


def test_the_pareto_front_holds_what_nothing_beats() -> None:
    assert [ranks for ranks, _ in pareto_front(ROWS)] == [(3,), (1,), (4,)]


def test_several_objectives_spread_along_the_front(tmp_path: Path) -> None:
    """ASR and KL both grow with the sum of the ranks: every set is on the front."""
    sampler = SubsetSampler(SPACE, 0)
    study = open_study(
        open_storage(storage_url(tmp_path / "s")), "s", sampler, ["maximize", "minimize"], {}
    )

    def evaluate(points: Sequence[Ranks], _threshold: float) -> list[Outcome]:
        return [Outcome(sum(p) / 18, 0.0, 0.0, kl=sum(p) / 18) for p in points]

    run_trials(study, SPACE, evaluate, 24)
    asr = [o.asr for _, o in finished_trials(study, SPACE)]
    assert min(asr) < 0.35
    assert max(asr) > 0.9


@given(
    refusals=st.lists(st.booleans(), min_size=4, max_size=40),
    threshold=st.floats(0, 1),
    order=st.randoms(use_true_random=False),
)
def test_a_trial_is_ended_exactly_when_it_cannot_reach_the_threshold(
    refusals: list[bool], threshold: float, order: random.Random
) -> None:
    """However refusals come in: a trial whose full ASR reaches the threshold is never ended."""
    n = len(refusals)
    watch = RefusalWatch(n, 2, lambda text: text == "no", threshold)
    rows = order.sample(range(n, 2 * n), n)  # the second of two trials
    again = rows[: order.randint(0, n)]  # made twice, as where memory did not suffice for a batch
    for row in [*again, *rows]:
        ended = watch({row: "no" if refusals[row - n] else "yes"})
        assert (row in ended) == (refusals[row - n] or watch.hopeless(1))
    asr = 1 - sum(refusals) / n
    assert watch.hopeless(1) == (asr < threshold)
    assert watch.bound(1) == asr
    assert not watch.hopeless(0) or threshold > 1


@pytest.mark.parametrize(("candidates", "k"), [(4, 5), (4, 0)])
def test_more_directions_than_candidates_are_refused(candidates: int, k: int) -> None:
    with pytest.raises(InputError, match=f"k = {k} directions cannot be taken from 4"):
        SubsetSpace(candidates, k)


def test_a_space_of_one_point_is_searched(tmp_path: Path) -> None:
    """As of the single direction alone: Optuna samples nothing where there is one value."""
    assert run(tmp_path / "s.db", trials=4, space=SubsetSpace(1, 1)) == (0,)
