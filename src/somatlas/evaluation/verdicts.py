"""Verdicts: a row a reply, with what every judge said of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from somatlas.completions.completion import Completion
from somatlas.files import write_jsonl
from somatlas.judges.registry import check_missing
from somatlas.judges.repetition import repetition
from somatlas.judges.verdict import Judge, Judgement, Verdict, judgements, refusal_judge
from somatlas.progress import progress
from somatlas.prompts.prompt_set import prompt_id
from somatlas.records import rows_of

if TYPE_CHECKING:  # who reads verdicts needs no torch
    from somatlas.models.language_model import LanguageModel

_VERDICTS = frozenset(verdict.value for verdict in Verdict)
LATE = (32, 96, 256, 512)  # tokens within which a refusal is looked for


@dataclass(frozen=True)
class VerdictRow:
    """One reply of one condition, judged; a line of verdicts.jsonl.

    verdict : the first judge's, which makes the table. judges : of each judge its verdict, and
    score and reason where it gives them. reasoning_verdict : the first judge's on what was thought
    aloud, None where nothing was. shown_within : the least of 32, 96, 256, 512 tokens, or of the
    reply's own, within which the behaviour shows; None where it does not. repetition : share of the
    reply's 4-grams that are repeats. prompt, system and sample say which of a condition's replies
    it is, as do prompt_id, system and sample.
    """

    condition: str
    kind: str
    category: str
    prompt: str
    verdict: str
    system: str = ""
    sample: int = 0
    ended: bool | None = None
    judges: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    reasoning_verdict: str | None = None
    shown_within: int | None = None
    repetition: float | None = None
    prompt_id: str = ""

    def __post_init__(self) -> None:
        if not self.prompt_id:
            object.__setattr__(self, "prompt_id", prompt_id(self.prompt))
        for name, said in {"the first": {"verdict": self.verdict}, **self.judges}.items():
            if said.get("verdict") not in _VERDICTS:
                raise ValueError(f"judge {name} said {said.get('verdict')!r}, which is no verdict")


def read_verdicts(path: Path) -> list[VerdictRow]:
    """The rows of a verdicts file; raises InputError where it is missing, damaged, empty or
    another's."""
    return rows_of(path, VerdictRow, "verdict")


def write_verdicts(path: Path, rows: Iterable[VerdictRow]) -> None:
    """Write a verdicts file, all or nothing."""
    write_jsonl(path, map(asdict, rows))


def by_condition(rows: Iterable[VerdictRow]) -> dict[str, list[VerdictRow]]:
    """The rows of each condition, in the order in which conditions first come."""
    sides: dict[str, list[VerdictRow]] = {}
    for row in rows:
        sides.setdefault(row.condition, []).append(row)
    return sides


@dataclass(frozen=True)
class Said:
    """What was said to a prompt. harmful : whether the prompt is, so that a judge is asked whether
    it is an answer; of others it is asked for refusals alone (`refusal_judge`)."""

    prompt: str
    text: str
    harmful: bool


@dataclass(frozen=True)
class Reading:
    """Of a reply's text: see `VerdictRow`."""

    shown_within: int | None
    repetition: float


def replies_of(every: Sequence[Completion]) -> list[Said]:
    """The replies of completions."""
    return [Said(one.prompt, one.reply, one.kind == "harmful") for one in every]


def thoughts_of(every: Sequence[Completion]) -> dict[int, Said]:
    """What was thought aloud, by the place of the completion."""
    return {
        place: Said(one.prompt, one.reasoning, one.kind == "harmful")
        for place, one in enumerate(every)
        if one.reasoning
    }


def judged(
    lm: LanguageModel,
    completions: Mapping[str, Sequence[Completion]],
    judges: Sequence[Judge],
    *,
    shows: Callable[[str], bool],
    tokens: int,
    max_missing: float = 1.0,
) -> list[VerdictRow]:
    """Every condition's completions, judged by all of the judges; the first one's verdicts count.

    shows : whether a text shows the behaviour. tokens : of a reply at most. max_missing : the share
    of replies that a judge may leave without a verdict; raises InputError for more.
    """
    every = [one for side in completions.values() for one in side]
    found = {}
    with progress("judge", len(every) * len(judges)) as advance:
        for judge in judges:
            found[judge.name] = judgements_of(judge, replies_of(every))
            check_missing(judge, found[judge.name], max_missing)
            advance(len(every))
    aloud = thoughts_of(every)
    thoughts = dict(zip(aloud, judgements_of(judges[0], list(aloud.values())), strict=True))
    readings = readings_of(lm, [one.reply for one in every], shows, tokens)
    return verdict_rows(completions, found, thoughts, readings)


def judgements_of(judge: Judge, said: Sequence[Said]) -> list[Judgement]:
    """What a judge says of what was said to each prompt."""
    found: dict[int, Judgement] = {}
    for asked, harmful in ((judge, True), (refusal_judge(judge), False)):
        rows = [i for i, one in enumerate(said) if one.harmful is harmful]
        given = judgements(asked, [said[i].prompt for i in rows], [said[i].text for i in rows])
        found |= dict(zip(rows, given, strict=True))
    return [found[i] for i in range(len(said))]


def readings_of(
    lm: LanguageModel, replies: Sequence[str], shows: Callable[[str], bool], tokens: int
) -> list[Reading]:
    """What can be read off replies of so many tokens at most. shows : see `judged`."""
    within = [n for n in LATE if n <= tokens]
    return [
        Reading(_shown_within(lm, reply, shows, within), round(repetition(lm.text_ids(reply)), 4))
        for reply in replies
    ]


def verdict_rows(
    completions: Mapping[str, Sequence[Completion]],
    found: Mapping[str, Sequence[Judgement]],
    thoughts: Mapping[int, Judgement],
    readings: Sequence[Reading],
) -> list[VerdictRow]:
    """The rows of completions. found : of each judge by name, the first one first. thoughts : the
    first one's of what was thought aloud, by place."""
    every = [(condition, one) for condition, side in completions.items() for one in side]
    return [
        VerdictRow(
            condition=condition,
            kind=one.kind,
            category=one.category,
            prompt=one.prompt,
            verdict=given[0].verdict.value,
            system=one.system,
            sample=one.sample,
            ended=one.ended,
            judges={name: _plain(v) for name, v in zip(found, given, strict=True)},
            reasoning_verdict=thoughts[place].verdict.value if place in thoughts else None,
            shown_within=read.shown_within,
            repetition=read.repetition,
            prompt_id=one.prompt_id,
        )
        for place, ((condition, one), read, *given) in enumerate(
            zip(every, readings, *found.values(), strict=True)
        )
    ]


def _shown_within(
    lm: LanguageModel, reply: str, shows: Callable[[str], bool], tokens: Sequence[int]
) -> int | None:
    """The least of the token counts after which the reply shows the behaviour; None for none."""
    if not shows(reply):
        return None
    ids = lm.text_ids(reply)
    for count in tokens:
        if len(ids) <= count or shows(str(lm.tokenizer.decode(ids[:count]))):
            return count
    return len(ids)


def _plain(judgement: Judgement) -> Mapping[str, Any]:
    values = {"score": judgement.score, "reason": judgement.reason}
    given = {name: value for name, value in values.items() if value is not None}
    return {"verdict": judgement.verdict.value, **given}
