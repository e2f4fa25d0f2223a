"""A person's verdicts on a run's replies, given in the terminal without seeing the condition.

labels.jsonl   one line a reply: its key, the label, in the order they were given
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from somatlas.completions.completion import Completion
from somatlas.files import JsonlCache
from somatlas.judges.verdict import Verdict

KEYS = {
    "c": Verdict.COMPLIED,
    "r": Verdict.REFUSED,
    "i": Verdict.INCOHERENT,
    "o": Verdict.OFF_TOPIC,
}


@dataclass(frozen=True)
class ToLabel:
    """A reply; its key is the same for the same prompt and reply, whatever condition made it."""

    completion: Completion

    @property
    def key(self) -> str:
        """Of prompt and reply."""
        content = json.dumps([self.completion.prompt, self.completion.reply])
        return hashlib.sha256(content.encode()).hexdigest()[:24]


def labels_at(path: Path) -> JsonlCache[str, Verdict]:
    """The labels of a file by reply key; a line that is none is left out."""
    return JsonlCache(path, lambda label: {"label": label.value}, lambda row: Verdict(row["label"]))


def to_label(
    completions: Iterable[Completion], kinds: Sequence[str], seed: int, limit: int | None = None
) -> list[ToLabel]:
    """The replies to label, shuffled by the seed, so that no condition comes in a row.

    A reply that several conditions gave comes once.
    """
    every = {ToLabel(c).key: ToLabel(c) for c in completions if c.kind in kinds}
    rows = [every[key] for key in sorted(every)]
    random.Random(seed).shuffle(rows)
    return rows[:limit]


def label(
    labels: JsonlCache[str, Verdict],
    rows: Sequence[ToLabel],
    ask: Callable[[str], str],
    show: Callable[[str], None],
) -> int:
    """Ask for each reply that has no label yet, keeping every answer in the file; returns how many.

    ask : given a question, returns what the person typed. show : given a text, prints it. Ends
    early where the person types q.
    """
    todo = [row for row in rows if row.key not in labels]
    given = 0
    for number, row in enumerate(todo, start=1):
        show(f"\n--- {number} of {len(todo)}\n\nREQUEST\n{row.completion.prompt}\n")
        show(f"REPLY\n{row.completion.reply or '(empty)'}\n")
        answer = ""
        while answer not in (*KEYS, "s", "q"):
            answer = (
                ask("[c]omplied, [r]efused, [i]ncoherent, [o]ff topic, [s]kip, [q]uit")
                .strip()
                .lower()
            )
        if answer == "q":
            break
        if answer != "s":
            labels.put({row.key: KEYS[answer]})
            given += 1
    return given
