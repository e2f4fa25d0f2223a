"""Where a fleet stops scaling: `python ray_simulation.py [SECONDS_A_PIECE]`.

A simulation, not a measurement: Llama 3 70B, 10,000 train prompts, 512 trials, up to 64 H100 GPUs,
4 a worker. How long a piece takes is calculated from its arithmetic and the weights that it reads
(docs/scale.md has both). What the driver does with each piece, one after another, was measured on
two busy cores: 3 ms, and 0.03 to 0.5 s to write 64 MiB, by the disk, of which 0.12 s is taken.
"""

from __future__ import annotations

import heapq
import random
import sys
from dataclasses import dataclass

FLOP = 2 * 70.6e9  # of a token
RATE = 4 * 989e12 * 0.4  # of a worker: its GPUs' bfloat16 rate, of which 40 % is reached
STEP_S = 141e9 / (4 * 3.35e12)  # of one more token of each reply: the weights are read once
LOAD_S = 120.0  # until a worker holds the model
GPUS = (4, 8, 16, 32, 64)
AHEAD = 4  # pieces a worker, as the fleet has it
SPREAD = 0.15  # of pieces' times, assumed: replies end early, prompts differ in length
WRITE_S = 0.12  # of a shard of 64 MiB, by the driver


@dataclass(frozen=True)
class Work:
    """One stage: rounds of pieces, each of which is waited for. driver_s : of a piece's result."""

    name: str
    rounds: int
    pieces: int
    piece_s: float
    driver_s: float


def replies_s(rows: int, prompt: int, tokens: int) -> float:
    """Seconds of replies in one batch."""
    return rows * (prompt + tokens) * FLOP / RATE + tokens * STEP_S


def stages(overhead_s: float) -> list[Work]:
    """The stages that ask the model, of 100 tokens a prompt. overhead_s : of any piece."""
    shard = 25  # prompts: 64 MiB of 80 layers of 8192
    trial = replies_s(4 * 41, 100, 48)
    return [
        Work("represent", 1, 2 * 10_000 // shard, shard * 100 * FLOP / RATE, overhead_s + WRITE_S),
        Work("layers", 1, 64 // 3 + 1, 3 * 40 * 100 * FLOP / RATE, overhead_s),
        Work("search, rounds of 4", 128, 1, trial, overhead_s),
        Work("search, rounds of 64", 8, 16, trial, overhead_s),
        Work("search, rounds of 256", 2, 64, trial, overhead_s),
        Work("ablate", 1, 3 * 3 * 159 // 64, replies_s(64, 100, 512), overhead_s),
    ]


def seconds(work: Work, workers: int, rng: random.Random) -> float:
    """Of the whole work: a piece goes to whoever is free, and is handed out in order by the driver,
    which gives out no piece too far ahead of the first that it waits for."""
    now = 0.0
    for _ in range(work.rounds):
        times = [max(0.1, rng.gauss(1, SPREAD)) * work.piece_s for _ in range(work.pieces)]
        free = [now] * workers
        heapq.heapify(free)
        ends: list[float] = []
        handed: list[float] = []
        for place, took in enumerate(times):
            start = heapq.heappop(free)
            if place >= AHEAD * workers:
                start = max(start, handed[place - AHEAD * workers])
            ends.append(start + took)
            heapq.heappush(free, ends[-1])
            handed.append(max(ends[-1], handed[-1] if handed else now) + work.driver_s)
        now = handed[-1]
    return now


def main(overhead_s: float) -> None:
    print(f"{'stage':<22}" + "".join(f"{gpus:>7} GPUs" for gpus in GPUS) + "   efficiency at 64")
    for work in stages(overhead_s):
        found = [seconds(work, gpus // 4, random.Random(0)) for gpus in GPUS]
        efficiency = found[0] / found[-1] / (GPUS[-1] / GPUS[0])
        print(f"{work.name:<22}" + "".join(f"{s:>10.0f} s" for s in found) + f"{efficiency:>15.2f}")
    print(f"and {LOAD_S:.0f} s at least until the workers hold the model, whatever their number")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 0.003)
