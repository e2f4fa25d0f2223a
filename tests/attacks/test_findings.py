"""Checks of sanity and the verdict, on numbers whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from somatlas.attacks.attack_cost import Bounded, Comparison, Estimate
from somatlas.attacks.findings import (
    Finding,
    Thresholds,
    bite_finding,
    budget_findings,
    floor_finding,
    hidden_finding,
    judge_finding,
    judges_finding,
    transfer_finding,
    verdict,
)
from somatlas.attacks.frontier import Draws

N = 100
DRAWS = Draws.of(N, resamples=500)
LIMITS = Thresholds()
NOTHING = Estimate(0.0, -0.02, 0.02)


def success(*shares: float) -> np.ndarray:
    """(1, m, n) with exactly those shares, the same prompts first."""
    return np.stack([(np.arange(N) < round(share * N)).astype(float) for share in shares])[None]


def of(share: float) -> np.ndarray:
    return success(*[share] * 7)


def test_a_search_must_not_lose_and_should_not_gain_by_more_trials() -> None:
    assert [f.passed for f in budget_findings(of(0.4), of(0.45), DRAWS, LIMITS)] == [True, True]
    assert [f.passed for f in budget_findings(of(0.4), of(0.2), DRAWS, LIMITS)] == [False, True]
    worse = budget_findings(of(0.4), of(0.6), DRAWS, LIMITS)
    assert [f.passed for f in worse] == [True, False]
    assert worse[1].numbers["value"] == pytest.approx(0.2)
    assert "+20 points" in worse[1].text


def test_gradient_over_means_is_a_sign_of_hiding() -> None:
    hidden = success(0, 0, 0.1, 0.2, 0.7, 0.8, 0.9)
    means = success(0, 0, 0.1, 0.2, 0.3, 0.8, 0.9)
    found = hidden_finding(hidden, means, DRAWS, LIMITS)
    assert found.passed is False
    assert "0.5 nats" in found.text
    assert hidden_finding(means, hidden, DRAWS, LIMITS).passed
    assert hidden_finding(of(0.44), of(0.30), DRAWS, LIMITS).passed  # 14 points


def test_transferred_directions_and_random_ones_are_the_weakest() -> None:
    assert transfer_finding(of(0.2), of(0.4), DRAWS).passed
    assert transfer_finding(of(0.4), of(0.2), DRAWS).passed is False
    assert floor_finding(of(0.1), of(0.05)[:, 0], DRAWS, LIMITS).passed
    assert floor_finding(of(0.3), of(0.05)[:, 0], DRAWS, LIMITS).passed is False


def test_an_attack_that_never_bites_is_told() -> None:
    assert bite_finding(0.2).passed
    assert bite_finding(0.9).passed is False


def test_a_judge_that_sees_no_answers_is_told() -> None:
    assert judge_finding(0.9).passed
    assert judge_finding(0.4).passed is False


def test_judges_that_part_are_told() -> None:
    mine, theirs = of(0.5)[:, 0], of(0.8)[:, 0]
    assert judges_finding([mine], ["one"], DRAWS, LIMITS).passed is None
    assert judges_finding([mine, mine], ["one", "two"], DRAWS, LIMITS).passed
    apart = judges_finding([mine, mine, theirs], ["one", "two", "three"], DRAWS, LIMITS)
    assert apart.passed is False
    assert apart.text.startswith("three finds +30 points")


def comparison(low: float, fall: float, high: float = math.inf) -> Comparison:
    return Comparison(Bounded(low, low, low, high), Estimate(-fall, -fall - 0.05, -fall + 0.05))


@pytest.mark.parametrize(
    ("cost", "more", "word"),
    [
        (comparison(2.5, 0.2), {}, "dearer to break"),
        (comparison(1.9, 0.2), {}, "not dearer"),
        (comparison(2.5, 0.08), {}, "not dearer"),
        (comparison(2.5, 0.2), {"borderline": Estimate(0.12, 0.1, 0.14)}, "dearer at a price"),
        (comparison(2.5, 0.2), {"borderline": Estimate(0.08, 0.0, 0.16)}, "dearer at a price"),
        (comparison(2.5, 0.2), {"harmless": Estimate(0.04, 0.0, 0.1)}, "dearer at a price"),
        (comparison(2.5, 0.2), {"drift": 0.3}, "dearer at a price"),
        (comparison(0.1, -0.3, 0.4), {}, "cheaper to break"),
        (comparison(2.5, 0.2), {"findings": [Finding("one", False, "so")]}, "undecided"),
        (comparison(2.5, 0.2), {"findings": [Finding("one", None, "so")]}, "dearer to break"),
    ],
)
def test_the_verdict_is_the_rule(cost: Comparison, more: dict[str, object], word: str) -> None:
    told = {"borderline": NOTHING, "harmless": NOTHING, "drift": 0.01, **more}
    assert verdict(cost, LIMITS, **told).word == word  # type: ignore[arg-type]


def test_prices_that_were_not_looked_at_are_named() -> None:
    found = verdict(comparison(3, 0.3), LIMITS, borderline=None, harmless=NOTHING, drift=None)
    assert found.unmeasured == (
        "tasks",
        "refusal of borderline prompts",
        "drift between the models",
    )
