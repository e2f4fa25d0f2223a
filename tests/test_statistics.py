"""Intervals against scipy's."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from somatlas.evaluation import condition_rates
from somatlas.statistics import quantile, wilson


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
