"""A person's verdicts on a run's replies, given in the terminal without seeing the condition.

RUN/labels.jsonl   one line a reply: its key, the label, in the order they were given
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from somatlas.errors import InputError
from somatlas.evaluation.evaluation import CONDITIONS, Completion, read_completions
from somatlas.files import append_row, appended_rows
from somatlas.judges.verdict import Verdict
from somatlas.runs.folder import Run

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


def read_labels(run: Run) -> dict[str, str]:
    """Labels by reply key; a line that is none is left out."""
    labels = {}
    for row in appended_rows(run.path("labels.jsonl")):
        try:
            labels[str(row["key"])] = Verdict(row["label"]).value
        except (KeyError, ValueError):
            continue
    return labels


def to_label(run: Run, kinds: Sequence[str], limit: int | None) -> list[ToLabel]:
    """The replies to label, shuffled by the run's seed, so that no condition comes in a row.

    A reply that several conditions gave comes once. Raises InputError where there are none.
    """
    run.needs("ablate")
    every = {
        ToLabel(c).key: ToLabel(c)
        for condition in CONDITIONS
        for c in read_completions(run.path(f"completions/{condition}.jsonl"))
        if c.kind in kinds
    }
    if not every:
        raise InputError(f"{run.folder} has no replies of kind {', '.join(kinds)}")
    rows = [every[key] for key in sorted(every)]
    random.Random(run.config.seed).shuffle(rows)
    return rows[:limit]


def label(
    run: Run, rows: Sequence[ToLabel], ask: Callable[[str], str], show: Callable[[str], None]
) -> int:
    """Ask for each reply that has no label yet, keeping every answer at once; returns how many.

    ask : given a question, returns what the person typed. show : given a text, prints it. Ends
    early where the person types q.
    """
    known = read_labels(run)
    todo = [row for row in rows if row.key not in known]
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
            append_row(run.path("labels.jsonl"), {"key": row.key, "label": KEYS[answer].value})
            given += 1
    return given
