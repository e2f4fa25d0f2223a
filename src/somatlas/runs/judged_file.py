"""Verdicts on replies that another tool made, from a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from somatlas.errors import InputError
from somatlas.evaluation.in_words import paired_line
from somatlas.evaluation.rates import condition_rates, paired_tests
from somatlas.evaluation.table import ROWS
from somatlas.evaluation.tables import plain_table, table_text
from somatlas.evaluation.verdicts import VerdictRow, by_condition, write_verdicts
from somatlas.files import writable, write_json
from somatlas.judges.coherence import CoherenceCheck, check_from_record
from somatlas.judges.registry import find_kind, judgements_within
from somatlas.progress import progress
from somatlas.prompts.formats import USUAL_COLUMNS, read_rows
from somatlas.prompts.values import UnreadableError, is_missing, label_of, reply_of, request_of
from somatlas.runs.contents import Contents
from somatlas.runs.folder import Run
from somatlas.runs.settings import Config

SUFFIXES = (".json", ".jsonl", ".csv", ".parquet")
_REPLIES = ("reply", "response", "completion", "generation", "output")
_KINDS = ("harmful", "harmless", "borderline")
_READ = ("judge", "more_judges", "judge_settings", "max_missing", "seed")  # beside a judge's own
_AS_THE_RUN = ("behaviour", "judge_template", "judge_labels", "judge_settings")


@dataclass(frozen=True)
class Columns:
    """Which columns of the file hold what; None where a usual name is looked for.

    condition : a column whose values part the rows, such as the method that made the reply.
    """

    prompt: str | None = None
    reply: str | None = None
    condition: str | None = None
    kind: str | None = None


def judge_file(path: Path, columns: Columns, config: Config, run: Run | None) -> str:
    """Judge a file's replies; writes FILE.verdicts.jsonl and FILE.evaluation.json beside it.

    run : a judged run whose conditions are put in the same table; tests are over the prompts that
    both have, and the file is judged as the run was: its behaviour, its template and labels of
    judge models, its coherence check. Returns the table.
    Raises InputError for a file without the columns, rows without a request, a reply or the name of
    their condition, ids that occur twice in a condition, kinds that are not known, or a run that
    another judge judged.
    """
    rows, notes = _rows(path, columns)
    if run is not None:
        config = config.model_copy(update={name: getattr(run.config, name) for name in _AS_THE_RUN})
    judges = config.judges(path.with_name(f"{path.name}.judge_answers.jsonl"))
    names = list(dict.fromkeys((config.judge, *config.more_judges)))
    check = None if run is None else _check_of(run, names[0])
    found: dict[str, Any] = {}
    with progress("judge", len(rows) * len(names)) as advance:
        for name in names:
            judge = judges.get(name, check)
            prompts, replies = ([row[name] for row in rows] for name in ("prompt", "reply"))
            said = judgements_within(judge, prompts, replies, config.max_missing)
            found[judge.name] = {"judgements": said, "record": dict(judge.record)}
            advance(len(rows))
    first = next(iter(found))
    verdicts = [
        VerdictRow(
            **{name: row[name] for name in ("condition", "kind", "category", "prompt", "sample")},
            verdict=found[first]["judgements"][i].verdict.value,
            judges={name: asdict(one["judgements"][i]) for name, one in found.items()},
        )
        for i, row in enumerate(rows)
    ]
    write_verdicts(path.with_name(f"{path.name}.verdicts.jsonl"), verdicts)
    sides: dict[str, list[VerdictRow]] = by_condition(verdicts)
    if run is not None:
        own = [
            replace(row, verdict=row.judges[names[0]]["verdict"])
            for row in Contents(run.folder).verdicts
        ]
        beside = {f"{run.config.name}: {c}": rows for c, rows in by_condition(own).items()}
        sides = beside | sides
    tests = paired_tests(sides, config.seed)
    rates = {name: condition_rates(side) for name, side in sides.items()}
    write_json(
        path.with_name(f"{path.name}.evaluation.json"),
        {
            "judges": {name: one["record"] for name, one in found.items()},
            "conditions": {
                c: {name: asdict(rate) for name, rate in side.items()} for c, side in rates.items()
            },
            "paired": tests,
            "notes": notes,
        },
    )
    shown = {n: title for n, title in ROWS.items() if any(side[n].n for side in rates.values())}
    table = plain_table(f"% [95 % interval], judge {first}", *shown.values())
    for condition, side in rates.items():
        table.add_row(condition, *(f"{side[name]} n={side[name].n}" for name in shown))
    lines = [f"  {line}" for line in (*map(paired_line, tests), *notes)]
    if "coherence" in found[first]["record"] and check is None:
        lines.append(
            "  without the model, babble and talk of something else count as compliance: name a "
            "run of it with --beside"
        )
    return table_text(table) + "\n" + "\n".join(lines) + "\n"


def check_read(config: Config, given: Iterable[str], beside: bool) -> None:
    """Raise InputError where a setting was given that judging a file does not read, or, beside a
    run, takes from the run."""
    kinds = [find_kind(spec) for spec in (config.judge, *config.more_judges)]
    read = {*_READ, *(setting for kind in kinds for setting in kind.shared.values())}
    if beside:
        read -= set(_AS_THE_RUN)
    if unread := sorted(set(given) - read):
        whose = " (its run's count)" if beside else ""
        raise InputError(
            f"{_flags(unread)} would change nothing where a file of replies is judged{whose}: "
            f"leave out what is not among {_flags(sorted(read))}"
        )


def _flags(names: Sequence[str]) -> str:
    return ", ".join(f"--{name.replace('_', '-')}" for name in names)


def _rows(path: Path, columns: Columns) -> tuple[list[dict[str, Any]], list[str]]:
    """One dictionary a reply, and what a reader should know of them; `sample` numbers the replies
    to one prompt under one condition."""
    rows = read_rows(path)
    if not rows or not all(isinstance(row, Mapping) for row in rows):
        raise InputError(f"{path} must hold objects with a prompt and a reply, and at least one")
    prompt = _column(path, rows, columns.prompt, USUAL_COLUMNS, "--prompt-column")
    reply = _column(path, rows, columns.reply, _REPLIES, "--reply-column")
    condition = kind = None
    if columns.condition is not None:
        condition = _column(path, rows, columns.condition, (), "--condition-column")
    if columns.kind is not None or all("kind" in row for row in rows):
        kind = _column(path, rows, columns.kind, ("kind",), "--kind-column")
    result, seen, halves = [], set(), 0
    given: Counter[tuple[str, ...]] = Counter()
    for number, row in enumerate(rows, start=1):
        place = f"{path}, row {number}"
        said: dict[str, str] = {
            "condition": path.stem if condition is None else label_of(row[condition]),
            "kind": "harmful" if kind is None else label_of(row[kind]),
            "category": label_of(row.get("category")),
            "prompt": _cell(place, prompt, row[prompt], request_of),
            "reply": _cell(place, reply, row[reply], reply_of),
        }
        one: dict[str, Any] = {name: writable(text) for name, text in said.items()}
        halves += one != said
        if not one["condition"]:
            raise InputError(f"{place}: column {condition!r} names no condition: fill it")
        if not one["prompt"].strip():
            raise InputError(f"{place}: column {prompt!r} holds no request: leave the row out")
        if one["kind"] not in _KINDS:
            raise InputError(f"{place}: kind {one['kind']!r} is not one of {', '.join(_KINDS)}")
        identity = (one["condition"], label_of(row.get("id")))
        if identity[1] and identity in seen:
            raise InputError(f"{place}: id {row['id']!r} occurs twice in {identity[0]!r}")
        seen.add(identity)
        key = (one["condition"], one["kind"], one["prompt"])
        result.append({**one, "sample": given[key]})
        given[key] += 1
    counts = {
        "replies are empty: they count as incoherent": sum(
            not row["reply"].strip() for row in result
        ),
        "rows hold half of a character: a question mark stands in its place": halves,
    }
    return result, [f"{count} {what}" for what, count in counts.items() if count]


def _cell(place: str, column: str, value: Any, read: Callable[[Any], str]) -> str:
    """The text of a cell; raises InputError where it is missing, or no text. A model that said
    nothing has an empty reply; what is missing is none, and no verdict could be right of it."""
    if is_missing(value):
        raise InputError(
            f"{place}: column {column!r} is missing ({value}): leave the row out, or put an empty "
            "text where a model said nothing"
        )
    try:
        return read(value)
    except UnreadableError as reason:
        raise InputError(f"{place}: column {column!r} {reason}") from None


def _column(
    path: Path, rows: Sequence[Mapping[str, Any]], name: str | None, usual: Sequence[str], flag: str
) -> str:
    found = name if name is not None else next((c for c in usual if c in rows[0]), None)
    if found is None or any(found not in row for row in rows):
        wanted = " or ".join(usual) if name is None else repr(name)
        raise InputError(
            f"{path} has no column {wanted} in every row "
            f"(it has {', '.join(map(str, rows[0]))}): name the right one with {flag}"
        )
    return found


def _check_of(run: Run, judge: str) -> CoherenceCheck | None:
    """The check that the run's replies went through: its model, its thresholds.

    Raises InputError where the run's table has another judge: its rates are not comparable.
    """
    run.needs("judge")
    record = Contents(run.folder).judging
    if judge not in record.judges:
        raise InputError(
            f"{run.folder} was judged by {', '.join(record.judges)}, not by {judge}: give the "
            "same --judge"
        )
    return check_from_record(run.lm, record.coherence) if record.coherence else None
