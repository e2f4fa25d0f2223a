"""What is chosen on val, by hand; and how well scores rank, against scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from somatlas.attacks.attack import Outcome
from somatlas.audits.choosing import choose
from somatlas.audits.kept_attempts import NONE, Tried
from somatlas.audits.recognition import auroc, probe_scores

CAPS = (0.1, 0.5, 2.0)


def tried(
    attack: str, number: int, k: int, asr: float, kl: float, *, opened: bool = False
) -> Tried:
    outcome = Outcome(asr, 1 - asr, 0.0, 0.0, kl)
    return Tried("model", 0, attack, number, f"{attack} {number}", k, opened, {}, outcome)


ROWS = [
    tried(NONE, 0, 0, 0.1, 0.0),
    tried("sd", 0, 1, 0.3, 0.08),
    tried("sd", 1, 1, 0.05, 0.02),
    tried("som", 0, 3, 0.6, 0.4),
    tried("som", 1, 2, 0.6, 0.3),
    tried("som", 2, 2, 0.9, 1.5),
    tried("som", 3, 2, 1.0, float("nan")),
    tried("prefill", 0, 0, 1.0, 0.0, opened=True),
    tried("random", 0, 3, 0.2, 0.05),
]


def chosen(trials: int = 99) -> dict[str, list[str]]:
    found = choose(ROWS, CAPS, lambda _: trials, lambda attack: attack != "random")
    names = {str(row.place): row.name for row in ROWS}
    sides = {**found.by_attack, "all": found.overall, "k": list(found.by_rank.values())}
    return {what: [names[str(place)] for place in places] for what, places in sides.items()}


def test_the_best_within_each_drift_and_of_equals_the_one_of_less() -> None:
    assert chosen()["all"] == ["sd 0", "som 1", "som 2"]
    assert chosen()["som"] == ["none 0", "som 1", "som 2"]
    assert chosen()["random"] == ["random 0"] * 3
    assert chosen()["prefill"] == ["prefill 0"] * 3
    assert chosen()["k"] == ["sd 0", "som 1", "som 0"]  # k = 1, 2, 3 within 1 nat


def test_the_plain_budget_knows_no_later_trial() -> None:
    assert chosen(1)["all"] == ["sd 0", "som 0", "som 0"]
    assert chosen(2)["som"] == ["none 0", "som 1", "som 1"]


def test_auroc_is_mann_whitneys() -> None:
    rng = np.random.default_rng(0)
    one, two = rng.integers(0, 9, 40), rng.integers(0, 7, 30)
    found = auroc(one.tolist(), two.tolist())
    assert found.value == pytest.approx(mannwhitneyu(one, two).statistic / (40 * 30))
    assert found.low < found.value < found.high
    assert auroc([2, 3], [0, 1]).low == 1


def test_a_probe_that_sees_one_layer_in_two_ranks_by_it() -> None:
    rng = np.random.default_rng(1)
    harmful, harmless = (rng.normal(size=(50, 2, 6)) for _ in range(2))
    harmful[:, 1, 0] += 4
    scores = probe_scores(harmful, harmless, {"harmful": harmful, "harmless": harmless})
    assert auroc(scores["harmful"], scores["harmless"]).value > 0.95
    loud = np.array([100.0, 1.0])[:, None]  # no layer rules by its scale
    both = probe_scores(loud * harmful, loud * harmless, {"harmful": loud * harmful})
    np.testing.assert_allclose(both["harmful"], scores["harmful"])
