"""What the benchmarks of trials and searches share: the trials of a run, and a whole search."""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median

from baseline import checkpoint
from common import MODEL, Row, timed
from samplers import SEARCH, compared
from somatlas import DirectionSet
from somatlas.runs.folder import Run
from somatlas.runs.settings import Config
from somatlas.runs.stages.search_stage import Trials
from somatlas.searches import (
    Ranks,
    SubsetSampler,
    SubsetSpace,
    contenders,
    finished_trials,
    open_storage,
    open_study,
    search,
    storage_url,
)

PROMPTS, TOKENS, PAPER_TRIALS = 41, 48, 3
PROTOCOL = f"paper protocol ({PAPER_TRIALS} trials measured)"


def on_a_run(description: str | None, measure: Callable[[Path, Path], None]) -> None:
    """Call measure with the folder that the command names and the default model's checkpoint."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("run", type=Path)
    folder = parser.parse_args().run
    with checkpoint() as saved:
        measure(folder, saved)


def trials_of(folder: Path) -> tuple[Trials, SubsetSpace, list[Ranks]]:
    """The trials of a run whose map stage is done, their space, and points for the baselines."""
    directions = DirectionSet.load(folder / "directions.safetensors")
    config = Config(
        model=MODEL, val_prompts=PROMPTS, search_tokens=TOKENS, selection_prompts=32, out=folder
    )
    space = SubsetSpace(min(16, len(directions)), 3)
    rng = random.Random(1)
    return Trials(Run(config), directions), space, [space.draw(rng) for _ in range(PAPER_TRIALS)]


def search_rows(
    trials: Trials,
    space: SubsetSpace,
    count: int,
    paper: float,
    *,
    judge: str = "",
    targets: tuple[float, float],
) -> list[Row]:
    """A search of `count` trials, and one to a winner as good as the paper's sampler's.

    paper : seconds of a trial of the paper's protocol. judge : what judges, if it is not the
    keyword judge, on whose table the number of trials to a winner was counted.
    """
    vectors = trials.directions.vectors[: space.candidates].numpy()
    with tempfile.TemporaryDirectory() as place:
        study = open_study(
            open_storage(storage_url(Path(place) / "s.db")),
            "s",
            SubsetSampler(space, 0, vectors),
            ["maximize"],
            {},
        )
        lanes = trials.config.lanes
        whole, _ = timed(lambda: search(study, space, trials, count, lanes=lanes))
        winner, outcome = contenders(finished_trials(study, space))[0]
    print(f"search: {winner}, ASR {outcome.asr:.3f} on val", flush=True)
    as_good = median(compared().as_good)
    again, source = (
        ("the same", "samplers.py, keyword judge") if judge else ("a search", "samplers.py")
    )
    return [
        Row(
            f"a search of {count} trials{judge and f' with {judge}'}",
            PROTOCOL,
            f"{whole:.0f} s",
            f"{count * paper:.0f} s",
            count * paper / whole,
            targets[0],
        ),
        Row(
            f"{again} to a winner as good as the paper's sampler's of {SEARCH} trials: "
            f"{as_good:.0f} trials (median, {source})",
            PROTOCOL,
            f"{as_good * whole / count:.0f} s",
            f"{SEARCH * paper:.0f} s",
            SEARCH * paper / (as_good * whole / count),
            targets[1],
        ),
    ]
