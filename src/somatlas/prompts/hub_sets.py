"""Prompts from data sets on the hub, the paper's among them; needs the extra `hub`."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from somatlas.errors import InputError
from somatlas.prompts.formats import Note, rows_to_prompts
from somatlas.prompts.prompt_set import Prompt, PromptSet

T = TypeVar("T")

# The paper's data (arXiv 2511.08379, appendix on data; its released code,
# create_representation_dataset.py, for the filter, the order and the seed).
SORRY_BENCH = "sorry-bench/sorry-bench-202406"
SORRY_BENCH_ROWS = 4000
SORRY_BENCH_EXCLUDED_STYLES = frozenset(
    {"uncommon_dialects", "translate-ta", "translate-ml", "atbash", "ascii", "morse", "caesar"}
)
ALPACA = "tatsu-lab/alpaca"
ALPACA_ROWS = 6000
SHUFFLE_SEED = 42
HARMBENCH = (
    "https://raw.githubusercontent.com/centerforaisafety/HarmBench/main/data/behavior_datasets/"
    "harmbench_behaviors_text_{}.csv"
)
# What the paper chooses its layers on: the sets of Arditi et al. (2406.11717), drawn from as
# utils/select_layer.py of its code draws.
ARDITI = (
    "https://raw.githubusercontent.com/andyrdt/refusal_direction/main/dataset/splits/{}_{}.json"
)
LAYER_ROWS = {"train": 128, "val": 32}


def hub_prompts(
    name: str,
    column: str | None = None,
    groups: Sequence[str] | None = None,
    note: Note = lambda _: None,
) -> list[Prompt]:
    """The prompts of hub data set NAME or NAME:SPLIT (default: train); as `read_prompts`."""
    repository, _, split = name.partition(":")
    if not repository.strip():
        raise InputError(
            f"'hub:{name}' names no data set: give hub:OWNER/NAME or hub:OWNER/NAME:SPLIT"
        )
    rows = _rows(repository, split or "train")
    return rows_to_prompts(rows, column, f"hub:{name}", groups, note)


def paper_prompts() -> PromptSet:
    """The paper's prompts: SORRY-Bench and Alpaca to train, HarmBench to validate and test.

    Train rows are in the paper's order, which decides the map and so what a rank names: the first
    4,000 and 6,000 rows, then shuffled. Alpaca's rows with an input are kept, without the input.
    Harmless val and test prompts, which the paper has none of, are the Alpaca rows after those,
    each once, without those that need an input or train too; there are no borderline prompts.
    """
    sorry = [
        Prompt(text=_first_turn(row["turns"]), category=str(row["category"]))
        for row in _rows(SORRY_BENCH, "train")
        if row["prompt_style"] not in SORRY_BENCH_EXCLUDED_STYLES
    ]
    alpaca = _rows(ALPACA, "train")
    harmless = [Prompt(text=row["instruction"]) for row in shuffled(alpaca[:ALPACA_ROWS])]
    harmless = [prompt for prompt in harmless if prompt.text.strip()]
    val, test = (
        [
            Prompt(text=row["Behavior"], category=row["SemanticCategory"])
            for row in _rows("csv", "train", data_files=HARMBENCH.format(split))
            if row["FunctionalCategory"] == "standard"
        ]
        for split in ("val", "test")
    )
    taken = {prompt.text.strip() for prompt in harmless}
    texts = (row["instruction"].strip() for row in alpaca[ALPACA_ROWS:] if not row["input"])
    rest = [Prompt(text=text) for text in dict.fromkeys(texts) if text and text not in taken]
    return PromptSet(
        positive={"train": shuffled(sorry[:SORRY_BENCH_ROWS]), "val": val, "test": test},
        negative={
            "train": harmless,
            "val": rest[: len(val)],
            "test": rest[len(val) : len(val) + len(test)],
        },
        borderline={},
    )


def layer_rule_prompts() -> PromptSet:
    """The 128 + 128 train and 32 + 32 val prompts that the paper chooses its layers on.

    One generator, seeded with 42, draws harmful then harmless train prompts, then val prompts.
    """
    rng = random.Random(SHUFFLE_SEED)
    drawn: dict[tuple[str, str], list[Prompt]] = {}
    for split, count in LAYER_ROWS.items():
        for side in ("harmful", "harmless"):
            rows = _rows("json", "train", data_files=ARDITI.format(side, split))
            prompts = [Prompt(row["instruction"], category=row["category"] or "") for row in rows]
            if len(prompts) < count:
                raise InputError(
                    f"{ARDITI.format(side, split)} holds {len(prompts)} prompts, fewer than the "
                    f"{count} that the layer rule draws: use --layer-data own"
                )
            drawn[side, split] = rng.sample(prompts, count)
    return PromptSet(
        positive={"train": drawn["harmful", "train"], "val": drawn["harmful", "val"]},
        negative={"train": drawn["harmless", "train"], "val": drawn["harmless", "val"]},
        borderline={},
    )


def shuffled(rows: Sequence[T]) -> list[T]:
    """The order of `datasets.Dataset.shuffle(seed=42)`: NumPy's permutation."""
    return [rows[i] for i in np.random.default_rng(SHUFFLE_SEED).permutation(len(rows))]


def _first_turn(turns: Any) -> str:
    return str(turns if isinstance(turns, str) else turns[0])


def _loader() -> Callable[..., Any]:
    """datasets.load_dataset, imported when it is first needed."""
    try:
        from datasets import load_dataset
    except ModuleNotFoundError:
        raise InputError(
            "prompts from the hub need the package datasets: pip install 'somatlas[hub]'"
        ) from None
    return load_dataset  # type: ignore[no-any-return]


def _rows(name: str, split: str, **options: Any) -> list[Any]:
    load_dataset = _loader()
    try:
        return list(load_dataset(name, split=split, **options))
    except Exception as error:  # the library raises its own, huggingface_hub's and httpx's errors
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(
            f"data set {name!r} cannot be loaded from the hub ({reason}): check the name, the "
            "network and, for a gated set, your access"
        ) from None
