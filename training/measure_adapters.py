"""Measure an embedded model on prompts that its training never saw.

    python training/measure_adapters.py smollm2-hardened [--file FILE ...] [--sd]

Prints the refusal rate on the bundled test prompts, on each FILE, and with --sd under ablation of
the mean difference of every layer in turn.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

from somatlas import Projection
from somatlas.directions import mean_difference
from somatlas.generation import generate
from somatlas.judges import is_refusal, is_settled_refusal
from somatlas.models.language_model import LanguageModel
from somatlas.models.load import load_model
from somatlas.prompts import bundled_prompts
from somatlas.prompts.files import read_prompts
from somatlas.prompts.sets import spread
from somatlas.representations import represent
from somatlas.statistics import wilson

TOKENS = 96
SD_PROMPTS = 64  # harmful test prompts a layer


def refusals(lm: LanguageModel, name: str, prompts: list[str], dump: Path | None) -> None:
    def settled(texts: Mapping[int, str]) -> list[int]:
        return [row for row, text in texts.items() if is_settled_refusal(text)]

    replies = generate(
        lm, prompts, max_new_tokens=TOKENS, batch_size=64, watch=None if dump else settled
    )
    count = sum(map(is_refusal, replies))
    print(f"{name}: {count} of {len(replies)}, {wilson(count, len(replies))}", flush=True)
    if dump is not None:
        rows = [
            {"set": name, "prompt": p, "reply": r, "refused": is_refusal(r)}
            for p, r in zip(prompts, replies, strict=True)
        ]
        with dump.open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--file", type=Path, action="append", default=[])
    parser.add_argument("--limit", type=int, default=200, help="prompts taken from each FILE")
    parser.add_argument("--sd", action="store_true", help="also ablate SD of every layer")
    parser.add_argument("--dump", type=Path, help="append the replies to this JSONL file")
    arguments = parser.parse_args()
    lm = load_model(arguments.model)
    prompts = bundled_prompts()
    for name, side in (
        ("harmful test", prompts.positive),
        ("harmless test", prompts.negative),
        ("borderline test", prompts.borderline),
    ):
        refusals(lm, name, [p.text for p in side["test"]], arguments.dump)
    for path in arguments.file:
        texts = [p.text for p in read_prompts(path)][: arguments.limit]
        refusals(lm, path.stem, texts, arguments.dump)
    if arguments.sd:
        layers = range(lm.n_layers)
        harmful, harmless = (
            represent(lm, [p.text for p in side["train"]], layers, batch_size=64)
            for side in (prompts.positive, prompts.negative)
        )
        for layer, direction in enumerate(mean_difference(harmful, harmless)):
            with lm.ablate(Projection(direction[None])):
                texts = [p.text for p in spread(prompts.positive["test"], SD_PROMPTS)]
                refusals(lm, f"harmful test, SD at layer {layer}", texts, arguments.dump)


if __name__ == "__main__":
    main()
