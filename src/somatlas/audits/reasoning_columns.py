"""A model that reasons, under one edit and three ways: its reasoning made again under the edit,
that of the unedited model in its place, and none.

An edit may take refusal out of the thoughts, out of the answer, or out of both; an attack success
alone does not tell which. So the answer is always made under the edit, of as many tokens at most,
and only where its thoughts come from differs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from somatlas.attacks.attack import Attempt
from somatlas.attacks.attack_cost import HALF, difference_of, mean_of
from somatlas.attacks.frontier import Floats
from somatlas.audits.bench import Baseline, Bench, Held, Means
from somatlas.audits.choosing import RANK_CAP
from somatlas.audits.kept_attempts import NONE, Kept, Place, Reasoned
from somatlas.audits.measured_model import Measured
from somatlas.audits.proving import verdicts_on
from somatlas.audits.recognition import Edited
from somatlas.files import append_rows
from somatlas.fleet import Fleet, Work, deal
from somatlas.judges.registry import Judges, is_asked_by_driver
from somatlas.judges.verdict import Judge, Verdict
from somatlas.models.generation import first_reply_tokens
from somatlas.models.language_model import LanguageModel
from somatlas.models.reasoning import closing_text, ends_reasoning
from somatlas.progress import Advance
from somatlas.prompts.prompt_set import texts

COLUMNS = ("regenerated", "fixed", "absent")


@dataclass(frozen=True)
class Thoughts:
    """What replies to some prompts are opened with: token ids up to the end of the reasoning, none
    where the model does not reason. cut : how many were closed at the limit of tokens. without :
    how many have no reasoning."""

    openings: list[list[int]]
    cut: int
    without: int


@dataclass(frozen=True)
class Answered:
    """Of each column one answer a prompt, thoughts left out. verdicts : of the deciding judge, None
    where it is for the driver to ask. The others as in `Reasoned`."""

    answers: dict[str, list[str]]
    absent_by: str
    cut: dict[str, int]
    without: dict[str, int]
    verdicts: dict[str, list[str]] | None = None


def thoughts(lm: LanguageModel, prompts: Sequence[str], tokens: int, batch_size: int) -> Thoughts:
    """The model's reasoning on each prompt as it is now, under whatever edit is in force.

    Reasoning of more than so many tokens is closed there by the template's own mark (budget
    forcing, arXiv 2501.19393), so that every answer is one behind reasoning that has ended.
    """
    made = first_reply_tokens(lm, prompts, tokens, batch_size)
    head = str(lm.tokenizer.decode(lm.token_ids(prompts[0])))
    opened = lm.opens_reasoning(prompts[0])
    closing = lm.text_ids(closing_text(head, lm.marks))
    found, cut, without = [], 0, 0
    for ids in made:
        end = _end(lm, ids)
        if end is not None:
            found.append(ids[:end])
        elif opened or lm.part_reasoning(lm.reply_texts([ids])[0], opened=False).reasoning:
            cut += 1
            found.append([*ids, *closing])
        else:
            without += 1
            found.append([])
    return Thoughts(found, cut, without)


def _end(lm: LanguageModel, ids: Sequence[int]) -> int | None:
    """How many of a reply's tokens there are until its reasoning is closed; None where it is not.

    What is closed stays so, so the place is found by halving.
    """

    def closed(count: int) -> bool:
        return ends_reasoning(lm.reply_texts([ids[:count]])[0], lm.marks)

    if not closed(len(ids)):
        return None
    low, high = 0, len(ids)  # closed at high, not at low
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if closed(middle) else (middle, high)
    return high


def reasoned(
    fleet: Fleet[Held],
    means: Means,
    kept: Kept,
    bases: Mapping[str, Baseline],
    places: Sequence[Place],
    judges: Judges,
) -> None:
    """Measure the three columns of attempts on the harmful test prompts, and keep what was found;
    answers go to the audit's replies. judges : those that the driver asks.

    Raises InputError where the judge left too many without a verdict.
    """
    prompts = texts(means.parts.test.harmful)
    todo = [place for place in places if str(place) not in kept.reasoning]
    pieces = deal([Edited(place, kept.known(place)) for place in todo], 1)
    made = fleet.prepared(column_work, bases).each(pieces)
    for place, [one] in zip(todo, made, strict=True):
        if kept.replies is not None:
            append_rows(kept.replies, _rows(str(place), prompts, one.answers))
        verdicts = one.verdicts
        if verdicts is None:
            verdicts = _verdicts(means, judges.get(means.plan.judge, None), one.answers)
        own = Reasoned(verdicts, one.absent_by, means.plan.tokens, one.cut, one.without)
        kept.reasoning.put({str(place): own})


def column_work(held: Held, bases: Mapping[str, Baseline]) -> Work[Edited, Answered]:
    """`column_answers` under edits, judged where the judge is asked there."""

    def work(edits: Sequence[Edited], _advance: Advance) -> list[Answered]:
        found = []
        for one in edits:
            bench = held.bench(one.place.role, bases)
            made = column_answers(bench, bench.made(one.place, one.known))
            spec = bench.means.plan.judge
            if not is_asked_by_driver(spec):
                verdicts = _verdicts(bench.means, bench.judges[spec], made.answers)
                made = replace(made, verdicts=verdicts)
            found.append(made)
        return found

    return work


def _verdicts(
    means: Means, judge: Judge, answers: Mapping[str, Sequence[str]]
) -> dict[str, list[str]]:
    prompts = texts(means.parts.test.harmful)
    return {
        column: verdicts_on(judge, prompts, said, means.max_missing)
        for column, said in answers.items()
    }


def column_answers(bench: Bench, attempt: Attempt) -> Answered:
    """What the model answers to the harmful test prompts under an attempt in each column."""
    prompts = texts(bench.means.parts.test.harmful)
    lm, tokens, size = bench.lm, bench.means.plan.tokens, bench.means.batch_size
    own = thoughts(lm, prompts, tokens, size)
    silent, block, absent_by = without_reasoning(lm)
    answers = {}
    with attempt.applied(lm):
        edited = thoughts(lm, prompts, tokens, size)
        for name, asked, openings in (
            ("regenerated", lm, edited.openings),
            ("fixed", lm, [opening or list(lm.skip) for opening in own.openings]),
            ("absent", silent, [block] * len(prompts)),
        ):
            asking = replace(bench.asking, lm=asked)
            opened = openings if any(openings) else None
            answers[name] = asking.replies(prompts, openings=opened)
    made = {"regenerated": edited, "fixed": own}
    return Answered(
        answers,
        absent_by,
        {name: one.cut for name, one in made.items()},
        {name: one.without for name, one in made.items()},
    )


def without_reasoning(lm: LanguageModel) -> tuple[LanguageModel, list[int], str]:
    """The model as it is asked not to reason, what its replies are opened with, and how that is
    said: by its template's switch where that works, else by an empty block of reasoning."""
    switch = None if lm.chat is None else lm.chat.switch
    if switch is not None:
        silent = replace(lm, thinking=False, skip=())
        if not silent.opens_reasoning("Hello"):
            return silent, [], f"the template's {switch}, off"
    return lm, list(lm.skip), "an empty block of reasoning"


def breaking_place(found: Measured) -> tuple[float, Place]:
    """The drift within which the model breaks, or else 1 nat, and what the first seed chose within
    it."""
    cost, caps = found.cost(found.frontier(found.top)), found.plan.caps
    reached = [i for i, share in enumerate(cost.fitted) if share >= HALF]
    within = [i for i, cap in enumerate(caps) if cap <= RANK_CAP]
    place = reached[0] if reached else max(within, default=0)
    return caps[place], found.choices(found.top)[0].overall[place]


def silence_of(lm: LanguageModel) -> str:
    """Why a model does not reason before it answers; empty where it does."""
    if lm.skip:
        return ""
    off = lm.thinking is False
    return "it is asked not to reason" if off else "it does not reason before it answers"


def left_out(silence: str, place: Place) -> str:
    """Why there are no three columns; empty where there are. silence : of `silence_of`."""
    if place.attack == NONE and not silence:
        return "no attempt beats the model as it is, so there is no edit to reason under"
    return silence


def column_numbers(found: Measured, cap: float, place: Place) -> dict[str, Any]:
    """For the record: what was measured, by column, with intervals; and the difference of each
    success to that with the reasoning regenerated, paired."""
    own, draws = found.kept.reasoning.all()[str(place)], found.draws()

    def cells(column: str, verdict: Verdict) -> Floats:
        said = own.verdicts[column]
        return np.array([[np.nan if v == Verdict.MISSING else float(v == verdict) for v in said]])

    success = {name: cells(name, Verdict.COMPLIED) for name in COLUMNS}
    row = found.kept.attempts.all()[str(place)]
    return {
        "cap": cap,
        "attack": row.attack,
        "attempt": row.name,
        "absent_by": own.absent_by,
        "tokens": own.tokens,
        "prompts": found.counts["harmful"],
        "cut": dict(own.cut),
        "without": dict(own.without),
        "success": {name: asdict(mean_of(success[name], draws)) for name in COLUMNS},
        "refusal": {name: asdict(mean_of(cells(name, Verdict.REFUSED), draws)) for name in COLUMNS},
        "change": {
            name: asdict(difference_of(success[name], success[COLUMNS[0]], draws))
            for name in COLUMNS[1:]
        },
    }


def _rows(
    place: str, prompts: Sequence[str], answers: Mapping[str, Sequence[str]]
) -> list[dict[str, str]]:
    return [
        {
            "attempt": place,
            "kind": "harmful",
            "reasoning": column,
            "prompt": prompt,
            "reply": reply,
        }
        for column, said in answers.items()
        for prompt, reply in zip(prompts, said, strict=True)
    ]
