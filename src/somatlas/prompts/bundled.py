"""The prompt set written for this project: one readable text file per category of harm.

A file holds ten topics of four pairs, and borderline prompts:

    ## SPLIT | harmful topic | harmless topic
    SYNTAX | harmful prompt | harmless prompt
    ## borderline
    SPLIT | SYNTAX | topic | prompt

Splits are by topic: no topic of one split stands in another.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import cast

from somatlas.prompts.prompt_set import SPLITS, Prompt, PromptSet, Split


@cache
def bundled_prompts() -> PromptSet:
    """All bundled prompts; categories stand in alphabetical order, topics as in their file."""
    positive: dict[Split, list[Prompt]] = {split: [] for split in SPLITS}
    negative: dict[Split, list[Prompt]] = {split: [] for split in SPLITS}
    borderline: dict[Split, list[Prompt]] = {split: [] for split in SPLITS}
    pair = 0
    folder = files("somatlas") / "data" / "prompts"
    for file in sorted(folder.iterdir(), key=lambda f: f.name):
        category = file.name.removesuffix(".txt")
        split: Split = "train"
        topics: list[str] = []
        for line in file.read_text(encoding="utf-8").splitlines():
            if line.startswith("## borderline"):
                topics = []
            elif line.startswith("## "):
                name, *topics = (part.strip() for part in line[3:].split(" | "))
                split = cast(Split, name)
            elif line and not line.startswith("#"):
                parts = [part.strip() for part in line.split(" | ")]
                if topics:
                    syntax, harmful, harmless = parts
                    positive[split].append(Prompt(harmful, category, topics[0], syntax, pair))
                    negative[split].append(Prompt(harmless, category, topics[1], syntax, pair))
                    pair += 1
                else:
                    name, syntax, topic, text = parts
                    borderline[cast(Split, name)].append(Prompt(text, category, topic, syntax))
    return PromptSet(positive, negative, borderline)


@cache
def general_prompts() -> tuple[str, ...]:
    """Everyday requests of many forms that no harmful prompt was written for: 420."""
    path = files("somatlas") / "data" / "general_prompts.txt"
    return tuple(path.read_text(encoding="utf-8").splitlines())
