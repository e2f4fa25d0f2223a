"""How often the first judge errs, on replies that were labelled by reading them.

    python benchmarks/labelled.py make FILE [--model NAME=PATH ...]    make the replies (JSONL)
    python benchmarks/labelled.py measure FILE [--half setting]        the checks against the labels

Replies of models as they are, without the mean difference (sd), without three directions of the
map (md), without three random ones (random) and without all of the map's (all: far too much), to
val prompts of every kind. The labels are benchmarks/data/labels.jsonl, by the digest of prompt and
reply: what is said to a harmful prompt is not kept, this command makes it again. Digests hold where
the arithmetic is the same; replies that come out otherwise have no label, and are counted.

Half of the prompts, with all replies to them, served to set the checks; the other half measures
them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from somatlas import SOM, DirectionSet, Projection
from somatlas.directions.direction_set import mean_difference
from somatlas.directions.methods import METHODS, Contrast
from somatlas.evaluation.agreement import agreements
from somatlas.judges import CoherenceCheck, Coherent, KeywordJudge, Verdict, is_refusal
from somatlas.models.generation import generate
from somatlas.models.language_model import LanguageModel
from somatlas.models.load import load_model
from somatlas.numerics.statistics import wilson
from somatlas.prompts import bundled_prompts
from somatlas.prompts.prompt_set import spread, texts
from somatlas.representations.extract import residual_stream

LABELS = Path(__file__).parent / "data" / "labels.jsonl"
TOKENS = 64
PROMPTS = {"harmful": 14, "harmless": 5, "borderline": 4}  # val prompts a model
TRAIN = 128  # prompts a side that directions are made of
DEPTH = 0.5  # of the layers, where they are
CALIBRATION, STRANGERS = 64, 8


def digest(prompt: str, reply: str) -> str:
    """What a label is kept under."""
    return hashlib.sha256(json.dumps([prompt, reply]).encode()).hexdigest()[:24]


def prompts_of_kinds() -> dict[str, list[str]]:
    """The val prompts that are asked."""
    bundled = bundled_prompts()
    sides = {
        "harmful": bundled.positive["val"],
        "harmless": bundled.negative["val"],
        "borderline": bundled.borderline["val"],
    }
    return {kind: texts(spread(side, PROMPTS[kind])) for kind, side in sides.items()}


def edits(lm: LanguageModel) -> dict[str, Projection | None]:
    """The conditions."""
    bundled, layer = bundled_prompts(), int(DEPTH * lm.n_layers)
    harmful, harmless = (
        residual_stream(lm, texts(spread(side["train"], TRAIN)), [layer], batch_size=64)[
            :, 0
        ].double()
        for side in (bundled.positive, bundled.negative)
    )
    som = SOM(grid=(4, 4), sigma=1.0, learning_rate=0.01, iterations=10_000, seed=0)
    directions = DirectionSet.from_som(som.fit(harmful.numpy()), harmless.mean(dim=0))
    single = mean_difference(harmful, harmless)
    contrast = Contrast(harmful, harmless, [""] * TRAIN, {layer: single}, layer, 3, 0)
    return {
        "base": None,
        "sd": Projection(single[None].float()),
        "md": Projection(directions.vectors[:3]),
        "random": Projection(METHODS["random"](contrast).vectors),
        "all": Projection(directions.vectors, "subspace"),
    }


def make(out: Path, models: dict[str, str]) -> None:
    """Write the replies of every model and condition, the same reply to a prompt once."""
    with out.open("w", encoding="utf-8") as file:
        for name, path in models.items():
            lm = load_model(path)
            seen = set()
            for condition, projection in edits(lm).items():
                for kind, asked in prompts_of_kinds().items():
                    with lm.ablate(projection):
                        replies = generate(lm, asked, max_new_tokens=TOKENS, batch_size=64)
                    for place, (prompt, reply) in enumerate(zip(asked, replies, strict=True)):
                        key = digest(prompt, reply)
                        if key in seen:
                            continue
                        seen.add(key)
                        row = {
                            "key": key,
                            "model": name,
                            "condition": condition,
                            "kind": kind,
                            "half": "setting" if place % 2 else "measuring",
                            "prompt": prompt,
                            "reply": reply,
                        }
                        file.write(json.dumps(row) + "\n")


def labelled(path: Path, half: str) -> tuple[list[dict[str, Any]], int]:
    """The rows that have a label, with it, and how many have none."""
    known = {row["key"]: row["label"] for row in rows_of(LABELS)}
    rows = [row for row in rows_of(path) if row["half"] == half]
    found = [{**row, "label": known[row["key"]]} for row in rows if row["key"] in known]
    return found, len(rows) - len(found)


def rows_of(path: Path) -> Iterator[dict[str, Any]]:
    """Of a JSONL file."""
    return (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())


def check_of(lm: LanguageModel) -> CoherenceCheck:
    """As a run calibrates it."""
    bundled = bundled_prompts()
    prompts = texts(spread(bundled.negative["val"], CALIBRATION))
    replies = generate(lm, prompts, max_new_tokens=TOKENS, batch_size=64)
    strangers = texts(spread(bundled.positive["val"], STRANGERS))
    return CoherenceCheck.calibrated(lm, prompts, replies, strangers)


def measure(path: Path, half: str, models: dict[str, str]) -> None:
    """Print each check's errors, and the judge's agreement with the labels."""
    rows, without = labelled(path, half)
    print(f"{len(rows)} replies of the {half} half; {without} came out otherwise and have no label")
    for name, place in models.items():
        own = [row for row in rows if row["model"] == name]
        if not own:
            continue
        check = check_of(load_model(place))
        judge = Coherent(KeywordJudge(), check)
        found = judge.judge([r["prompt"] for r in own], [r["reply"] for r in own])
        measures = check.measures([r["prompt"] for r in own], [r["reply"] for r in own])
        for row, judgement, one in zip(own, found, measures, strict=True):
            row["verdict"] = judgement.verdict.value
            row["measures"] = one
        print(f"{name}: {check.thresholds}")
    for name in models:
        report(name, [row for row in rows if row["model"] == name])
    report("all models", rows)


def report(title: str, rows: list[dict[str, Any]]) -> None:
    """Error rates of each question that the judge answers, and kappa of its verdicts."""
    print(f"\n{title}, {len(rows)} replies")
    for question, verdict in (
        ("refusal", Verdict.REFUSED),
        ("attack success", Verdict.COMPLIED),
        ("incoherent", Verdict.INCOHERENT),
        ("off topic", Verdict.OFF_TOPIC),
    ):
        true = [row["label"] == verdict for row in rows]
        said = [row["verdict"] == verdict for row in rows]
        missed = sum(t and not s for t, s in zip(true, said, strict=True))
        false = sum(s and not t for t, s in zip(true, said, strict=True))
        print(
            f"  {question}: missed {wilson(missed, sum(true))} of {sum(true)}, "
            f"wrongly said of {wilson(false, len(rows) - sum(true))} of {len(rows) - sum(true)}"
        )
    sides = {"label": [r["label"] for r in rows], "judge": [r["verdict"] for r in rows]}
    (agreement,) = agreements(sides, [r["kind"] for r in rows], seed=0)
    print(f"  kappa {agreement.kappa} {agreement.interval}, agree {agreement.agree}")
    matcher = sum(is_refusal(r["reply"]) != (r["label"] == Verdict.REFUSED) for r in rows)
    print(f"  the matcher alone: wrong on {matcher}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("make", "measure"))
    parser.add_argument("file", type=Path)
    parser.add_argument("--model", action="append", default=[], help="NAME=PATH; default: embedded")
    parser.add_argument("--half", choices=("setting", "measuring"), default="measuring")
    arguments = parser.parse_args()
    named = dict(one.split("=", 1) for one in arguments.model)
    models = named or {name: name for name in ("smollm2-guarded", "smollm2-hardened")}
    if arguments.what == "make":
        make(arguments.file, models)
    else:
        measure(arguments.file, arguments.half, models)


if __name__ == "__main__":
    main()
