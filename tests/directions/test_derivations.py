"""What docs/method.md derives, verified numerically."""

from __future__ import annotations

import math

import numpy as np
import pytest

from somatlas import SOM
from somatlas.numerics.statistics import resolvable_difference

DIMENSIONS, REPEATS = 20, 400


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("steps", [5, 40, 600])
def test_one_neuron_comes_as_near_to_the_mean_as_the_bound_says(rate: float, steps: int) -> None:
    """E|w_t - mu| <= (1 - a)^t |w_0 - mu| + sigma sqrt(a / (2 - a)) for a constant rate."""
    rng = np.random.default_rng(0)
    scales = rng.random(DIMENSIONS) + 0.2
    sigma = math.sqrt((scales**2).sum())
    mean = rng.normal(size=DIMENSIONS)
    w = np.tile(mean + 3.0, (REPEATS, 1))
    start = np.linalg.norm(w[0] - mean)
    for _ in range(steps):
        x = mean + scales * rng.normal(size=w.shape)
        w += rate * (x - w)
    deviation = np.linalg.norm(w - mean, axis=1).mean()
    noise = sigma * math.sqrt(rate / (2 - rate))
    slack = 1 + 3 / math.sqrt(REPEATS * DIMENSIONS)
    assert deviation <= ((1 - rate) ** steps * start + noise) * slack
    if (1 - rate) ** steps * start < 0.01 * noise:
        assert deviation > 0.9 * noise  # the bound is tight
        if rate < 0.9:
            assert deviation > 1.1 * rate * sigma  # and a sigma alone would be too small


def test_a_map_of_one_neuron_gives_the_mean_difference() -> None:
    rng = np.random.default_rng(1)
    data = rng.normal(size=(500, 30)) @ rng.normal(size=(30, 30)) + 4
    sigma = math.sqrt(((data - data.mean(axis=0)) ** 2).sum(axis=1).mean())
    som = SOM(grid=(1, 1)).fit(data)
    assert np.linalg.norm(som.weights_[0] - data.mean(axis=0)) < sigma * math.sqrt(0.01 / 1.99)


def test_what_the_page_says_of_64_and_159_prompts() -> None:
    assert round(100 * resolvable_difference(64)) == 17
    assert round(100 * resolvable_difference(159)) == 11
