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
from somatlas.judges import CoherenceCheck, Coherent, KeywordJudge
from somatlas.models.generation import generate
from somatlas.models.language_model import LanguageModel
from somatlas.models.load import load_model
from somatlas.prompts import bundled_prompts
from somatlas.prompts.prompt_set import spread, texts
from somatlas.searches import (
    Ranks,
    SubsetSampler,
    SubsetSpace,
    contenders,
    finished_trials,
    in_lanes,
    open_storage,
    open_study,
    run_trials,
    storage_url,
)
from somatlas.searches.trials import Asking, Trials

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
    vectors = DirectionSet.load(folder / "directions.safetensors").vectors
    lm = load_model(MODEL)
    asking = Asking.by(checked_judge(lm), lm, tokens=TOKENS)
    space = SubsetSpace(min(16, len(vectors)), 3)
    rng = random.Random(1)
    harmful = texts(spread(bundled_prompts().val.harmful, PROMPTS))
    trials = Trials(asking, vectors, harmful)
    return trials, space, [space.draw(rng) for _ in range(PAPER_TRIALS)]


def checked_judge(lm: LanguageModel) -> Coherent:
    """The keyword judge behind a check of answers as long as a trial's."""
    val = bundled_prompts().val
    harmless = texts(spread(val.harmless, 64))
    replies = generate(lm, harmless, max_new_tokens=TOKENS, batch_size=128)
    strangers = texts(spread(val.harmful, 8))
    return Coherent(KeywordJudge(), CoherenceCheck.calibrated(lm, harmless, replies, strangers))


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
    vectors = trials.vectors[: space.candidates].numpy()
    with tempfile.TemporaryDirectory() as place:
        study = open_study(
            open_storage(storage_url(Path(place) / "s.db")),
            "s",
            SubsetSampler(space, 0, vectors),
            ["maximize"],
            {},
        )
        lanes = trials.asking.lanes
        whole, _ = timed(lambda: run_trials(study, space, in_lanes(trials, lanes), count))
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
