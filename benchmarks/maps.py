"""Maps against MiniSom: one on one core, and many on all.

python benchmarks/maps.py
"""

from __future__ import annotations

import os

import numpy as np
from minisom import MiniSom

from common import Row, timed, write
from somatlas import SOM
from somatlas.directions.som import fit_all

N, D, STEPS, LAYERS, SEEDS = 4000, 4096, 10_000, 30, 5
SIGMA = 0.33  # the paper's


def minisom(data: np.ndarray, seed: int) -> MiniSom:
    som = MiniSom(4, 4, D, sigma=SIGMA, learning_rate=0.01, topology="hexagonal", random_seed=seed)
    som.random_weights_init(data)
    som.train_random(data, STEPS)
    return som


def main() -> None:
    rng = np.random.default_rng(0)
    data = rng.normal(size=(N, D)) + rng.normal(size=(8, D))[rng.integers(8, size=N)]
    SOM(iterations=10).fit(data[:50])  # compiles, once a machine
    baseline, reference = timed(lambda: minisom(data, 0))
    one, som = timed(lambda: SOM(sigma=SIGMA, seed=0, iterations=STEPS).fit(data))
    gap = np.abs(som.weights_ - reference.get_weights().reshape(16, D)).max()
    assert gap < 1e-6, gap
    jobs = [
        (SOM(sigma=SIGMA, seed=i % SEEDS, iterations=STEPS), data) for i in range(LAYERS * SEEDS)
    ]
    many, _ = timed(lambda: fit_all(jobs))
    total = baseline * LAYERS * SEEDS
    write(
        "maps",
        [
            Row(
                f"map, n {N}, d {D}, 4x4, {STEPS} steps, one core",
                "MiniSom 2.3.6",
                f"{one:.2f} s",
                f"{baseline:.1f} s",
                baseline / one,
                25,
            ),
            Row(
                f"maps for {LAYERS} layers x {SEEDS} seeds, {os.cpu_count()} cores",
                "MiniSom one after another (one measured)",
                f"{many:.0f} s",
                f"{total:.0f} s",
                total / many,
                45,
            ),
        ],
    )


if __name__ == "__main__":
    main()
