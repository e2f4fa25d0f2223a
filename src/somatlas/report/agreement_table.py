"""What `somatlas agree` prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from somatlas.completions.completion import Completion
from somatlas.errors import InputError
from somatlas.evaluation.agreement import Agreement, agreements, judged_rows
from somatlas.evaluation.labels import ToLabel, labels_at, to_label
from somatlas.evaluation.tables import plain_table, table_text
from somatlas.evaluation.verdicts import VerdictRow
from somatlas.runs.contents import Contents
from somatlas.runs.folder import Run

_SHOWN = 400  # characters of a reply


def run_agreements(run: Run) -> tuple[list[Agreement], list[VerdictRow]]:
    """Agreement of the run's judges, and of each with a person's labels, where there are any.

    Also the verdicts, in whose order the replies are counted.
    """
    run.needs("judge")
    contents = Contents(run.folder)
    rows = contents.verdicts
    verdicts = judged_rows(rows)
    labels = labels_at(run.path("labels.jsonl")).all()
    if labels:
        keys = [ToLabel(c).key for c in contents.judged_completions]
        verdicts["person"] = [labels.get(key) for key in keys]
    categories = [row.category or row.kind for row in rows]
    return agreements(verdicts, categories, run.config.seed), rows


def replies_to_label(run: Run, kinds: Sequence[str], limit: int | None) -> list[ToLabel]:
    """The run's replies of some kinds, in an order that hides what made them.

    Raises InputError where there are none.
    """
    run.needs("ablate")
    every = [c for side in Contents(run.folder).completions.values() for c in side]
    rows = to_label(every, kinds, run.config.seed, limit)
    if not rows:
        raise InputError(f"{run.folder} has no replies of kind {', '.join(kinds)}")
    return rows


def agreement_text(run: Run, *, show_completions: bool) -> str:
    """Kappa of every two judges, where they differ, and on which replies.

    Raises InputError where there is one judge alone.
    """
    found, rows = run_agreements(run)
    if not found:
        raise InputError(
            f"{run.folder} has one judge alone: add --more-judges to `somatlas judge`, or label "
            "replies with `somatlas label`"
        )
    parts = [_kappas(found)]
    for one in found:
        if one.differing:
            parts.append(_confusion(one))
            parts.append(_differing(run, one, rows, show_completions))
    return "\n".join(parts)


def _kappas(found: Sequence[Agreement]) -> str:
    table = plain_table("judges", "n", "same verdict", "kappa [95 % interval]")
    for one in found:
        interval = "" if one.interval is None else " [{:.2f}, {:.2f}]".format(*one.interval)
        table.add_row(
            f"{one.first} and {one.second}",
            str(one.n),
            "-" if one.agree is None else f"{one.agree:.0%}",
            "-" if one.kappa is None else f"{one.kappa:.2f}{interval}",
        )
    return table_text(table)


def _confusion(one: Agreement) -> str:
    """Pairs of verdicts that differ, by category; those that agree as one number."""
    table = plain_table("category", "n", "same", f"{one.first} / {one.second}")
    for category, counts in sorted(one.confusion.items(), key=lambda item: -_apart(item[1])):
        apart = [f"{a} / {b}: {n}" for (a, b), n in Counter(counts).most_common() if a != b]
        total = sum(counts.values())
        if apart:
            table.add_row(category, str(total), str(total - _apart(counts)), ", ".join(apart))
    return table_text(table)


def _apart(counts: Mapping[tuple[str, str], int]) -> int:
    return sum(n for (a, b), n in counts.items() if a != b)


def _differing(run: Run, one: Agreement, rows: Sequence[VerdictRow], show_completions: bool) -> str:
    lines = [f"  replies on which {one.first} and {one.second} differ:"]
    replies: list[Completion] = []
    if show_completions:
        replies = Contents(run.folder).judged_completions
    for i in one.differing:
        row = rows[i]
        both = ", ".join(
            f"{name} {row.judges[name]['verdict']}"
            for name in (one.first, one.second)
            if name != "person"
        )
        lines.append(f"    {row.condition}, {row.kind}: {row.prompt} ({both})")
        if show_completions:
            lines.append(f"      {' '.join(replies[i].reply.split())[:_SHOWN]}")
    return "\n".join(lines) + "\n"
