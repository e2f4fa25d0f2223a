"""Measure an embedded model on prompts that its training never saw.

    python training/measure_adapters.py smollm2-hardened [--file FILE ...] [--sd] [--split test]

Prints the refusal rate on the bundled val prompts and on each FILE, how many replies end by
themselves and how many loop, and with --sd refusal under ablation of the mean difference of every
layer in turn. What is decided on these figures is decided on val; the test split's appear once,
when nothing is decided any more.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from somatlas import Projection
from somatlas.directions.direction_set import mean_difference
from somatlas.judges import is_refusal, is_settled_refusal
from somatlas.judges.repetition import repetition
from somatlas.models.generation import generate
from somatlas.models.language_model import LanguageModel
from somatlas.models.load import load_model
from somatlas.numerics.statistics import wilson
from somatlas.prompts import bundled_prompts
from somatlas.prompts.formats import read_prompts
from somatlas.prompts.prompt_set import spread, texts
from somatlas.representations.extract import residual_stream

TOKENS = 64
SD_PROMPTS = 64  # harmful prompts a layer
LOOP = 0.5  # of its 4-grams repeat in a reply that loops


def measure(lm: LanguageModel, name: str, prompts: Sequence[str], dump: Path | None) -> None:
    """Print how many of the prompts are refused, how many replies end, and how many loop."""
    replies = generate(lm, prompts, max_new_tokens=TOKENS, batch_size=64)
    ids = [lm.tokenizer(reply, add_special_tokens=False)["input_ids"] for reply in replies]
    n = len(replies)
    for what, count in (
        ("refused", sum(map(is_refusal, replies))),
        (f"end within {TOKENS} tokens", sum(reply.ended for reply in replies)),
        ("loop", sum(repetition(row) > LOOP for row in ids)),
    ):
        print(f"{name}: {what} {count} of {n}, {wilson(count, n)}", flush=True)
    print(f"{name}: {sum(map(len, ids)) / n:.0f} tokens a reply", flush=True)
    if dump is not None:
        rows = [
            {"set": name, "prompt": p, "reply": r, "ended": r.ended, "refused": is_refusal(r)}
            for p, r in zip(prompts, replies, strict=True)
        ]
        with dump.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)


def refused(lm: LanguageModel, prompts: Sequence[str]) -> int:
    """How many are refused; a reply ends where that is settled."""

    def settled(rows: Mapping[int, str]) -> list[int]:
        return [row for row, text in rows.items() if is_settled_refusal(text)]

    replies = generate(lm, prompts, max_new_tokens=TOKENS, batch_size=64, watch=settled)
    return sum(map(is_refusal, replies))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--split", choices=("val", "test"), default="val")
    parser.add_argument("--file", type=Path, action="append", default=[])
    parser.add_argument("--limit", type=int, default=200, help="prompts taken from each FILE")
    parser.add_argument("--sd", action="store_true", help="also ablate SD of every layer")
    parser.add_argument("--dump", type=Path, help="append the replies to this JSONL file")
    arguments = parser.parse_args()
    lm = load_model(arguments.model)
    prompts, split = bundled_prompts(), arguments.split
    for name, side in (
        ("harmful", prompts.positive),
        ("harmless", prompts.negative),
        ("borderline", prompts.borderline),
    ):
        measure(lm, f"{name} {split}", texts(side[split]), arguments.dump)
    for path in arguments.file:
        asked = [p.text for p in read_prompts(path)][: arguments.limit]
        measure(lm, path.stem, asked, arguments.dump)
    if arguments.sd:
        harmful, harmless = (
            residual_stream(lm, texts(side["train"]), range(lm.n_layers), batch_size=64)
            for side in (prompts.positive, prompts.negative)
        )
        asked = texts(spread(prompts.positive[split], SD_PROMPTS))
        for layer, direction in enumerate(mean_difference(harmful, harmless)):
            with lm.ablate(Projection(direction[None])):
                count = refused(lm, asked)
            print(f"SD of layer {layer}: {count} of {len(asked)} refused", flush=True)


if __name__ == "__main__":
    main()
