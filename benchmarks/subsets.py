"""Every set of 3 of 16 directions, evaluated once: what samplers are compared on.

    python benchmarks/subsets.py RUN

RUN is the folder of a run of the default model whose map stage is done. Writes
data/subsets.json: the directions' Gram matrix, and each set's ASR on 41 val prompts (24 tokens).
Half an hour on 2 cores; it goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from common import MODEL
from somatlas import DirectionSet
from somatlas.files import write_json
from somatlas.progress import progress
from somatlas.runs.folder import Run
from somatlas.runs.settings import Config
from somatlas.runs.stages.search_stage import Trials
from somatlas.searches import SubsetSpace

PATH = Path(__file__).parent / "data" / "subsets.json"
PROMPTS, TOKENS = 41, 24


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    folder = parser.parse_args().run
    directions = DirectionSet.load(folder / "directions.safetensors")
    space = SubsetSpace(min(16, len(directions)), 3)
    config = Config(model=MODEL, val_prompts=PROMPTS, search_tokens=TOKENS, out=folder)
    trials = Trials(Run(config), directions)
    unit = torch.nn.functional.normalize(directions.vectors[: space.candidates].double(), dim=1)
    gram = [[round(x, 6) for x in row] for row in (unit @ unit.T).tolist()]
    content = json.loads(PATH.read_text()) if PATH.exists() else {"asr": {}}
    content |= {"model": MODEL, "prompts": PROMPTS, "tokens": TOKENS, "gram": gram}
    left = [p for p in space.points() if ",".join(map(str, p)) not in content["asr"]]
    with progress("subsets", len(left)) as advance:
        for start in range(0, len(left), config.lanes):
            points = left[start : start + config.lanes]
            for point, outcome in zip(points, trials(points, 0.0), strict=True):
                content["asr"][",".join(map(str, point))] = round(outcome.asr, 4)
            advance(len(points))
            write_json(PATH, content)


if __name__ == "__main__":
    main()
