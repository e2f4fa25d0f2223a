"""Frontier and attack cost against synthetic ones whose truth is known, and against scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import isotonic_regression
from scipy.stats import binom

from somatlas.attacks.attack_cost import (
    attack_cost,
    chance_to_break,
    compared,
    difference_of,
    mean_of,
    rank_to_break,
    trials_to_break,
)
from somatlas.attacks.frontier import (
    BUDGETS,
    Draws,
    area,
    cell_means,
    crossing,
    isotonic,
    value_at,
)
from somatlas.numerics.statistics import crossed_interval

PROMPTS, TRIES = 128, 200
DRAWS = Draws.of(PROMPTS, resamples=1000)
CROSSED = (0.02, 0.05, 0.12, 0.30, 0.60, 0.80, 0.90)  # AC50 between 0.25 and 0.5 nats
CENSORED = (0.01, 0.02, 0.04, 0.08, 0.15, 0.25, 0.35)  # never
AT_ONCE = (0.70, 0.75, 0.80, 0.85, 0.90, 0.92, 0.95)
NEAR_THE_END = (0.02, 0.05, 0.10, 0.20, 0.30, 0.40, 0.55)  # often not reached in a sample


def sampled(truth: tuple[float, ...], rng: np.random.Generator, nested: float = 0.5) -> np.ndarray:
    """(1, m, n) outcomes whose means are the truth: a share of the prompts has one strength at all
    budgets, as one edit's larger brother breaks what it broke, the others a draw for each."""
    own = rng.random((len(truth), PROMPTS))
    own = np.where(rng.random(PROMPTS) < nested, own[:1], own)
    return (own < np.array(truth)[:, None]).astype(float)[None]


def misses_within_error(misses: int) -> bool:
    """Whether so many misses in 200 belong to intervals of 95 % (both tails at 1 in 1000)."""
    return bool(binom.cdf(misses, TRIES, 0.05) < 0.999 and binom.sf(misses - 1, TRIES, 0.05) > 1e-3)


def test_the_monotone_fit_is_scipys() -> None:
    values = np.random.default_rng(0).random((50, 7))
    expected = [isotonic_regression(row).x for row in values]
    assert np.allclose(isotonic(values), expected, atol=1e-12)


def test_a_crossing_is_interpolated_in_the_logarithm_of_drift() -> None:
    fitted = np.array([0.0, 0.0, 0.2, 0.4, 0.6, 0.6, 1.0])
    least, most = crossing(BUDGETS, fitted)
    assert least == most == pytest.approx(math.sqrt(0.25 * 0.5))
    for level, bounds in ((0.4, [2.0, math.inf]), (0.5, [0.0, 0.03])):
        assert np.array_equal(crossing(BUDGETS, np.full(7, level)), bounds)
    assert value_at(BUDGETS, fitted, float(least)) == pytest.approx(0.5)


def test_the_area_is_a_mean_over_log_uniform_budgets() -> None:
    assert area(BUDGETS, np.full(7, 0.3)) == pytest.approx(0.3)
    drift = np.exp(np.linspace(math.log(0.03), math.log(2), 20_001))
    dense = [value_at(BUDGETS, CROSSED, d) for d in drift]
    assert area(BUDGETS, CROSSED) == pytest.approx(np.mean(dense), abs=1e-4)


@pytest.mark.parametrize("nested", [0.0, 1.0])
def test_the_interval_of_ac50_misses_in_one_of_twenty(nested: float) -> None:
    rng = np.random.default_rng(1)
    truth = float(crossing(BUDGETS, CROSSED)[0])
    expected = float(area(BUDGETS, np.array(CROSSED)))
    missed = missed_area = 0
    for _ in range(TRIES):
        cost = attack_cost(sampled(CROSSED, rng, nested), DRAWS)
        missed += not cost.ac50.low <= truth <= cost.ac50.high
        missed_area += not cost.area.low <= expected <= cost.area.high
    assert misses_within_error(missed)
    assert misses_within_error(missed_area)


def test_the_interval_of_a_ratio_misses_in_one_of_twenty() -> None:
    rng = np.random.default_rng(2)
    other = (0.10, 0.25, 0.45, 0.65, 0.80, 0.90, 0.95)
    truth = float(crossing(BUDGETS, CROSSED)[0] / crossing(BUDGETS, other)[0])
    missed = 0
    for _ in range(TRIES):
        own, theirs = sampled(CROSSED, rng), sampled(other, rng)
        ratio = compared(own, theirs, DRAWS).ratio
        missed += not ratio.low <= truth <= ratio.high
    assert misses_within_error(missed)


def test_what_is_not_reached_is_said_to_be_so() -> None:
    cost = attack_cost(sampled(CENSORED, np.random.default_rng(3)), DRAWS)
    assert (cost.ac50.least, cost.ac50.most, cost.ac50.high) == (2.0, math.inf, math.inf)
    assert not cost.ac50.known
    assert cost.ac50.value is None
    early = attack_cost(sampled(AT_ONCE, np.random.default_rng(3)), DRAWS).ac50
    assert (early.least, early.most, early.low) == (0.0, 0.03, 0.0)


def test_intervals_reach_over_the_end_of_the_budgets() -> None:
    rng = np.random.default_rng(4)
    truth = float(crossing(BUDGETS, NEAR_THE_END)[0])
    assert 1 < truth < 2
    missed = censored = 0
    for _ in range(TRIES):
        found = attack_cost(sampled(NEAR_THE_END, rng), DRAWS).ac50
        censored += not found.known
        missed += not found.low <= truth <= found.high
    assert 10 < censored < TRIES  # a point estimate alone would be wrong in so many
    assert binom.cdf(missed, TRIES, 0.05) < 0.999


def test_ratios_of_censored_costs_are_bounds() -> None:
    rng = np.random.default_rng(5)
    hard, easy, mid = (sampled(t, rng) for t in (CENSORED, AT_ONCE, CROSSED))
    ratio = compared(hard, mid, DRAWS).ratio
    known = attack_cost(mid, DRAWS).ac50.least
    assert (ratio.least, ratio.most, ratio.high) == (2 / known, math.inf, math.inf)
    assert 2 < ratio.low < ratio.least
    both = compared(hard, hard, DRAWS).ratio
    assert (both.least, both.most) == (0.0, math.inf)
    assert compared(easy, hard, DRAWS).ratio.most == 0.03 / 2
    assert compared(mid, mid, DRAWS).ratio.least == 1


def test_the_same_draws_make_a_paired_difference() -> None:
    rng = np.random.default_rng(6)
    first = (rng.random((1, PROMPTS)) < 0.6).astype(float)
    second = np.where(rng.random((1, PROMPTS)) < 0.1, 1 - first, first)
    paired = difference_of(first, second, DRAWS)
    other = Draws.of(PROMPTS, resamples=1000, seed=1)
    alone = np.quantile(
        DRAWS.means(first[:, None])[:, 0] - other.means(second[:, None])[:, 0], (0.025, 0.975)
    )
    assert paired.high - paired.low < 0.7 * (alone[1] - alone[0])


def test_seeds_are_a_second_level_of_draws() -> None:
    rng = np.random.default_rng(7)
    cells = (rng.random((4, PROMPTS)) < np.array([0.2, 0.4, 0.6, 0.8])[:, None]).astype(float)
    wide = mean_of(cells, Draws.of(PROMPTS, 4, resamples=4000))
    expected = crossed_interval(cells.tolist(), seed=1)
    assert expected is not None
    assert (wide.value, wide.low, wide.high) == pytest.approx(expected, abs=0.02)
    flat = mean_of(cells.reshape(1, -1), Draws.of(4 * PROMPTS, resamples=4000))
    assert wide.high - wide.low > 3 * (flat.high - flat.low)


def test_missing_verdicts_are_left_out() -> None:
    cells = sampled(CROSSED, np.random.default_rng(8))
    cells[0, :, :3] = np.nan
    assert cell_means(cells) == pytest.approx(cells[0, :, 3:].mean(axis=1))
    cost = attack_cost(cells, DRAWS)
    assert cost.n == PROMPTS - 3
    assert np.isfinite([cost.low, cost.high]).all()


def test_bands_know_doubt_where_every_prompt_is_alike() -> None:
    cost = attack_cost(np.zeros((1, 7, PROMPTS)), DRAWS)
    assert 0.02 < cost.high[-1] < 0.04
    assert mean_of(np.ones((1, 64)), Draws.of(64, resamples=100)).low < 0.96


def test_rank_to_break_is_the_least_that_does() -> None:
    rng = np.random.default_rng(9)
    ranks = {k: (rng.random((1, PROMPTS)) < share) for k, share in ((1, 0.05), (2, 0.3), (3, 0.7))}
    found = rank_to_break(ranks, DRAWS)
    assert (found.least, found.most, found.low, found.high) == (3, 3, 3, 3)
    never = rank_to_break({k: ranks[k] for k in (1, 2)}, DRAWS)
    assert (never.least, never.most, never.high) == (2, math.inf, math.inf)


def test_trials_and_chance_count_within_the_cap() -> None:
    success, drift = [0.1, 0.9, 0.6, 0.2], [0.1, 3.0, 0.9, 0.1]
    assert trials_to_break([success], [drift]) == 3
    assert trials_to_break([success, [0.5], [0.1]], [drift, [0.2], [0.2]]) == 3
    assert trials_to_break([[0.1], success, [0.2]], [[0.1], drift, [0.1]]) is None
    chance = chance_to_break(success, drift)
    assert (chance.rate, chance.n) == (0.25, 4)
