"""Prompts from data sets on the hub, the paper's among them; needs the extra `hub`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from somatlas.errors import InputError
from somatlas.prompts.files import rows_to_prompts
from somatlas.prompts.sets import Prompt, PromptSet

# The paper's data (arXiv 2511.08379, appendix on data; its released code for the filter).
SORRY_BENCH = "sorry-bench/sorry-bench-202406"
SORRY_BENCH_ROWS = 4000
SORRY_BENCH_EXCLUDED_STYLES = frozenset(
    {"uncommon_dialects", "translate-ta", "translate-ml", "atbash", "ascii", "morse", "caesar"}
)
ALPACA = "tatsu-lab/alpaca"
ALPACA_ROWS = 6000
HARMBENCH = (
    "https://raw.githubusercontent.com/centerforaisafety/HarmBench/main/data/behavior_datasets/"
    "harmbench_behaviors_text_{}.csv"
)


def hub_prompts(name: str, column: str | None) -> list[Prompt]:
    """The prompts of hub data set NAME or NAME:SPLIT (default: train)."""
    repository, _, split = name.partition(":")
    return rows_to_prompts(_rows(repository, split or "train"), column, f"hub:{name}")


def paper_prompts() -> PromptSet:
    """The paper's prompts: SORRY-Bench and Alpaca to train, HarmBench to validate and test.

    Harmless val and test prompts are the Alpaca rows after the 6,000 that train; there are no
    borderline ones.
    """
    sorry = [
        Prompt(text=_first_turn(row["turns"]), category=str(row["category"]))
        for row in _rows(SORRY_BENCH, "train")
        if row["prompt_style"] not in SORRY_BENCH_EXCLUDED_STYLES
    ]
    alpaca = rows_to_prompts(
        [row for row in _rows(ALPACA, "train") if not row["input"]], "instruction", ALPACA
    )
    val, test = (
        [
            Prompt(text=row["Behavior"], category=row["SemanticCategory"])
            for row in _rows("csv", "train", data_files=HARMBENCH.format(split))
            if row["FunctionalCategory"] == "standard"
        ]
        for split in ("val", "test")
    )
    end_val = ALPACA_ROWS + len(val)
    return PromptSet(
        positive={"train": sorry[:SORRY_BENCH_ROWS], "val": val, "test": test},
        negative={
            "train": alpaca[:ALPACA_ROWS],
            "val": alpaca[ALPACA_ROWS:end_val],
            "test": alpaca[end_val : end_val + len(test)],
        },
        borderline={},
    )


def _first_turn(turns: Any) -> str:
    return str(turns if isinstance(turns, str) else turns[0]).strip()


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
