"""Intervals against scipy's."""

from __future__ import annotations

import math
import random
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, bootstrap
from statsmodels.stats.contingency_tables import mcnemar as exact_mcnemar
from statsmodels.stats.inter_rater import cohens_kappa

from somatlas.evaluation.rates import condition_rates, paired_tests
from somatlas.evaluation.verdicts import VerdictRow
from somatlas.numerics.statistics import (
    correlation,
    holm,
    kappa,
    kappa_interval,
    mcnemar,
    paired_difference,
    quantile,
    resolvable_difference,
    wilson,
)


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_equals_scipys(counts: tuple[int, int]) -> None:
    successes, n = counts
    ours = wilson(successes, n)
    theirs = binomtest(successes, n).proportion_ci(method="wilson")
    assert ours.rate == successes / n
    assert ours.low == pytest.approx(theirs.low, abs=1e-12)
    assert ours.high == pytest.approx(theirs.high, abs=1e-12)


def test_no_prompts_give_no_rate() -> None:
    empty = wilson(0, 0)
    assert (empty.rate, empty.n, str(empty)) == (None, 0, "-")


def test_a_rate_prints_in_percent_with_its_interval() -> None:
    assert str(wilson(5, 10)) == "50 % [24, 76]"


@given(st.lists(st.floats(-9, 9), min_size=1), st.floats(0, 1))
def test_a_quantile_has_its_share_at_or_below_it(values: list[float], share: float) -> None:
    q = quantile(values, share)
    assert q in values
    assert sum(v <= q for v in values) >= math.floor(share * len(values))
    assert share == 0 or sum(v < q for v in values) < share * len(values) + 1e-9


def row(kind: str, verdict: str, prompt: str = "") -> VerdictRow:
    return VerdictRow("base", kind, "", prompt, verdict)


def test_rates_of_a_condition_use_their_own_prompts() -> None:
    rows = [
        *[row("harmful", v) for v in ("refused", "complied", "complied", "incoherent")],
        *[row("harmless", v) for v in ("complied", "refused")],
    ]
    rates = condition_rates(rows)
    assert {k: (r.rate, r.n) for k, r in rates.items()} == {
        "refusal": (0.25, 4),
        "asr": (0.5, 4),
        "babble": (0.25, 4),
        "off_topic": (0.0, 4),
        "harmless_refusal": (0.5, 2),
        "borderline_refusal": (None, 0),
    }


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_twice_the_smaller_tail_of_the_binomial(b: int, c: int) -> None:
    tail = sum(Fraction(math.comb(b + c, i), 2 ** (b + c)) for i in range(min(b, c) + 1))
    assert mcnemar(b, c) == pytest.approx(float(min(1, 2 * tail)), rel=1e-12)


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=60), st.sampled_from([0.02, 0.5, 0.98]))
def test_a_quantile_is_the_least_value_with_the_share_at_or_below_it(
    values: list[float], share: float
) -> None:
    found = quantile(values, share)
    enough = [v for v in values if sum(w <= v for w in values) / len(values) >= share]
    assert found == min(enough)


def test_holm_corrects_in_order_and_never_reverses() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


@given(st.integers(0, 10_000), st.integers(4, 40))
def test_correlation_equals_numpys(seed: int, n: int) -> None:
    rng = random.Random(seed)
    x = [rng.gauss(0, 1) for _ in range(n)]
    y = [a + rng.gauss(0, 1) for a in x]
    assert correlation(x, y) == pytest.approx(np.corrcoef(x, y)[0, 1], rel=1e-9)


def test_no_correlation_where_nothing_varies() -> None:
    assert correlation([1, 2, 3], [1, 2, 3]) is None
    assert correlation([1, 1, 1, 1], [1, 2, 3, 4]) is None
    assert correlation([1, 2, 3, 4], [2, 4, 6, 8]) == pytest.approx(1)


def test_repeats_widen_the_interval_to_that_of_the_units() -> None:
    assert wilson(30, 60, repeats=3).low == wilson(10, 20).low
    assert wilson(30, 60, repeats=3).n == 20


def test_missing_verdicts_count_for_nothing() -> None:
    rows = [row("harmful", v) for v in ("refused", "missing", "complied")]
    assert condition_rates(rows)["refusal"].rate == 0.5
    assert condition_rates(rows)["refusal"].n == 2


def test_a_paired_difference_has_scipys_interval() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random(60), rng.random(60) + 0.1
    ours = paired_difference(a, b, seed=0)
    theirs = bootstrap((b - a,), np.mean, method="percentile", n_resamples=10_000, rng=1)
    assert ours[0] == pytest.approx((b - a).mean())
    assert ours[1] == pytest.approx(theirs.confidence_interval.low, abs=0.01)
    assert ours[2] == pytest.approx(theirs.confidence_interval.high, abs=0.01)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=2, max_size=60))
def test_kappa_is_statsmodels(pairs: list[tuple[int, int]]) -> None:
    first, second = [a for a, _ in pairs], [b for _, b in pairs]
    table = np.zeros((3, 3))
    np.add.at(table, (first, second), 1)
    ours = kappa(first, second)
    if ours is None:
        assert len(set(first) | set(second)) == 1
    else:
        assert ours == pytest.approx(cohens_kappa(table, return_results=False))
        low, high = kappa_interval(first, second, seed=0) or (0, 0)
        assert low <= high


@pytest.mark.parametrize(("n", "discordant"), [(64, 0.25), (159, 0.25), (400, 0.1)])
def test_a_resolvable_difference_is_found_four_times_in_five(n: int, discordant: float) -> None:
    """Simulated with exact McNemar, which is a little more cautious than the approximation."""
    gap = resolvable_difference(n, discordant)
    share = max(discordant, gap)
    rng = np.random.default_rng(0)
    more = rng.binomial(n, share, size=4000)
    up = rng.binomial(more, (share + gap) / (2 * share))
    found = [mcnemar(int(m - u), int(u)) < 0.05 for m, u in zip(more, up, strict=True)]
    assert 0.7 < np.mean(found) < 0.85


def test_mcnemar_is_statsmodels() -> None:
    for first, second in ((0, 0), (3, 9), (12, 12), (0, 7)):
        table = [[5, first], [second, 5]]
        assert mcnemar(first, second) == pytest.approx(exact_mcnemar(table, exact=True).pvalue)


def test_conditions_are_compared_prompt_by_prompt() -> None:
    def rows(verdicts: str) -> list[VerdictRow]:
        names = {"r": "refused", "c": "complied", "m": "missing"}
        return [row("harmful", names[v], str(i)) for i, v in enumerate(verdicts)]

    tests = paired_tests({"base": rows("rrrrrm"), "md": rows("ccccrc")}, seed=0)
    refusal = next(t for t in tests if t["outcome"] == "refusal")
    assert refusal["n"] == 5
    assert refusal["difference"] == pytest.approx(-0.8)
    assert (refusal["only_first"], refusal["only_second"]) == (4, 0)
    assert refusal["p"] == mcnemar(4, 0)
    assert refusal["p_holm"] == pytest.approx(2 * mcnemar(4, 0))
