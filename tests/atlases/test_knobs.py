"""The tests of one knob or many, against statsmodels, enumeration and planted cells."""

from __future__ import annotations

from collections import Counter
from itertools import product

import numpy as np
import pytest
from statsmodels.stats.contingency_tables import cochrans_q

from somatlas.atlases.knobs import _trade, cochran_q, discordance, one_knob_test

CELLS, PROMPTS = 16, 32


def answers(
    strength: np.ndarray, rng: np.random.Generator, slope: float = 1.0, prompts: int = PROMPTS
) -> np.ndarray:
    """(c, n) refusals of cells of a strength (c,), by prompts of various thresholds."""
    thresholds = rng.normal(size=prompts)
    chance = 1 / (1 + np.exp(slope * (strength[:, None] - thresholds)))
    return np.asarray(rng.random(chance.shape) < chance)


def test_cochrans_q_is_statsmodels_and_its_p_near_the_asymptotic_one() -> None:
    rng = np.random.default_rng(0)
    for strengths in (np.zeros(6), np.linspace(-0.5, 0.5, 6)):
        outcomes = answers(strengths, rng, prompts=80)
        theirs = cochrans_q(outcomes.T.astype(int))
        q, p = cochran_q(outcomes, draws=4000)
        assert q == pytest.approx(theirs.statistic)
        assert p == pytest.approx(theirs.pvalue, abs=0.03)


def test_prompts_that_tell_no_cells_apart_say_nothing() -> None:
    alike = np.repeat(np.array([[True, False, True]]), 4, axis=0)
    assert cochran_q(alike) == (0.0, 1.0)
    assert one_knob_test(alike, alike, draws=50) == {"discordance": 0, "expected": 0.0, "p": 1.0}


def test_discordance_is_of_pairs_that_differ_in_opposite_ways() -> None:
    rising = np.array([0, 2, 5]), np.array([1, 1, 9])
    assert discordance(*rising) == 0
    # Of the pairs (0, 1), (0, 2) and (1, 2) the last alone is discordant: (5 - 2) * (4 - 1).
    assert discordance(np.array([0, 2, 5]), np.array([0, 4, 1])) == 9


def test_trades_reach_every_table_of_the_same_margins_alike_often() -> None:
    table = np.array([[1, 1, 0, 0], [0, 1, 1, 0], [1, 0, 0, 1]], dtype=bool)
    margins = table.sum(axis=0), table.sum(axis=1)
    every = [
        cells
        for cells in product([0, 1], repeat=table.size)
        if all(
            np.array_equal(np.reshape(cells, table.shape).sum(axis=a), m)
            for a, m in enumerate(margins)
        )
    ]
    rng, seen, draws = np.random.default_rng(0), Counter[tuple[int, ...]](), 6000
    for _ in range(draws):
        _trade(table, 6, rng)
        seen[tuple(table.astype(int).ravel().tolist())] += 1
    assert set(seen) == set(every)
    expected = draws / len(every)
    assert max(abs(count - expected) for count in seen.values()) < 5 * np.sqrt(expected)


@pytest.mark.parametrize("slope", [1.0, 2.5], ids=["alike", "harmful-steeper"])
def test_cells_of_one_knob_are_called_many_no_more_often_than_the_level_says(slope: float) -> None:
    """Also where refusals of harmful prompts fall faster along the one curve."""
    found = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        strength = rng.normal(size=CELLS)
        both = answers(strength, rng, slope), answers(strength, rng)
        found.append(one_knob_test(*both, seed=seed, draws=99)["p"] <= 0.05)
    assert sum(found) <= 8  # 3 expected; 9 or more come by chance once in 250 such tests


def test_cells_of_two_knobs_are_found() -> None:
    rng = np.random.default_rng(0)
    strength = rng.normal(size=(2, CELLS)) * 1.5
    found = one_knob_test(answers(strength[0], rng), answers(strength[1], rng))
    assert found["p"] < 0.01
    assert found["discordance"] > 2 * found["expected"]
