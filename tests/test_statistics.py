"""Intervals against scipy's."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, pearsonr

from somatlas.evaluation import condition_rates
from somatlas.statistics import correlation, holm, mcnemar, quantile, wilson


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


def test_rates_of_a_condition_use_their_own_prompts() -> None:
    rows = [
        *[{"kind": "harmful", "verdict": v} for v in ("refused", "complied", "complied")],
        {"kind": "harmful", "verdict": "incoherent"},
        *[{"kind": "harmless", "verdict": v} for v in ("complied", "refused")],
    ]
    rates = condition_rates(rows)
    assert {k: (r.rate, r.n) for k, r in rates.items()} == {
        "refusal": (0.25, 4),
        "asr": (0.5, 4),
        "babble": (0.25, 4),
        "harmless_refusal": (0.5, 2),
        "borderline_refusal": (None, 0),
    }


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_exact_binomial_test(b: int, c: int) -> None:
    expected = binomtest(b, b + c).pvalue if b + c else 1.0
    assert mcnemar(b, c) == pytest.approx(expected)


def test_holm_corrects_in_order_and_never_reverses() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


@given(st.integers(0, 10_000), st.integers(4, 40))
def test_correlation_equals_scipys_with_its_interval(seed: int, n: int) -> None:
    rng = random.Random(seed)
    x = [rng.gauss(0, 1) for _ in range(n)]
    y = [a + rng.gauss(0, 1) for a in x]
    found = correlation(x, y)
    expected = pearsonr(x, y)
    assert found is not None
    assert found[0] == pytest.approx(expected.statistic)
    interval = expected.confidence_interval(0.95)
    assert found[1:] == pytest.approx((interval.low, interval.high), abs=1e-9)


def test_no_correlation_where_nothing_varies() -> None:
    assert correlation([1, 2, 3], [1, 2, 3]) is None
    assert correlation([1, 1, 1, 1], [1, 2, 3, 4]) is None
    assert correlation([1, 2, 3, 4], [2, 4, 6, 8]) == (1, 1, 1)
