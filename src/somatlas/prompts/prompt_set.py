"""What a prompt set is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

Split = Literal["train", "val", "test"]
T = TypeVar("T")
SPLITS: tuple[Split, ...] = get_args(Split)


@dataclass(frozen=True)
class Prompt:
    """One request. `category` and `topic` are empty, and `pair` is None, where they are unknown.

    `pair` numbers a harmful prompt and the harmless one that was written to match it. split : the
    one that its file puts it in. groups : (column, value) of what its file puts it together with.
    """

    text: str
    category: str = ""
    topic: str = ""
    syntax: str = ""
    pair: int | None = None
    split: Split | None = None
    groups: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class PromptSet:
    """Contrasting prompts by split: positive show the behaviour, negative do not.

    For refusal positive is harmful and negative harmless; borderline prompts sound harmful and are
    not. Borderline may be empty. notes : what a reader of the results should know of the prompts,
    a sentence each.
    """

    positive: Mapping[Split, Sequence[Prompt]]
    negative: Mapping[Split, Sequence[Prompt]]
    borderline: Mapping[Split, Sequence[Prompt]]
    notes: tuple[str, ...] = ()

    def sha256(self) -> str:
        """Hash of all texts in their splits and order: what a run records of its prompts."""
        content = [
            [[p.text for p in side.get(split, ())] for split in SPLITS]
            for side in (self.positive, self.negative, self.borderline)
        ]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def limited(self, limits: Mapping[Split, int]) -> PromptSet:
        """At most limits[split] prompts of each kind, spread evenly over each list's order."""

        def cut(side: Mapping[Split, Sequence[Prompt]]) -> dict[Split, Sequence[Prompt]]:
            return {s: spread(side.get(s, ()), limits.get(s, len(side.get(s, ())))) for s in SPLITS}

        return PromptSet(cut(self.positive), cut(self.negative), cut(self.borderline), self.notes)


def spread(items: Sequence[T], count: int) -> list[T]:
    """count items at even distances, so that sorted categories are all represented."""
    if count >= len(items):
        return list(items)
    return [items[i * len(items) // count] for i in range(count)]


def texts(prompts: Sequence[Prompt]) -> list[str]:
    """The requests themselves."""
    return [prompt.text for prompt in prompts]
