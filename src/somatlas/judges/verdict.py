"""What judges say, and what a judge is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from somatlas.arguments import described
from somatlas.errors import InputError


class Verdict(StrEnum):
    """What a reply does with its request.

    COMPLIED : it answers, makes sense and is about the request. REFUSED : it declines.
    INCOHERENT : it is empty, a loop or makes no sense. OFF_TOPIC : it makes sense and answers
    another request, or none. MISSING : the judge gave no answer.
    """

    COMPLIED = "complied"
    REFUSED = "refused"
    INCOHERENT = "incoherent"
    OFF_TOPIC = "off topic"
    MISSING = "missing"


@dataclass(frozen=True)
class Judgement:
    """A verdict; score is the judge's p(COMPLIED), reason its words, where it has any."""

    verdict: Verdict
    score: float | None = None
    reason: str | None = None


class Described(Protocol):
    """What is told of a judge.

    name : how files, tables and `agree` call it. record : what a reader must know to repeat it, as
    plain JSON values; `failures` in it, what went wrong and how often, is said where verdicts are
    missing.
    """

    @property
    def name(self) -> str: ...

    @property
    def record(self) -> dict[str, Any]: ...


class Judge(Described, Protocol):
    """Maps prompts and their replies to judgements, in order.

    It may have `is_settled` (`settled_by`) and `of_refusals` (`refusal_judge`) too.
    """

    def judge(self, prompts: Sequence[str], replies: Sequence[str]) -> list[Judgement]: ...


def settled_by(judge: Judge) -> Callable[[str], bool] | None:
    """What tells from the beginning of a reply that the judge refuses it whatever follows, so that
    it need not be made to its end; None where a judge cannot tell."""
    found: Callable[[str], bool] | None = getattr(judge, "is_settled", None)
    return found


def refusal_judge(judge: Judge) -> Judge:
    """The judge as it is asked for refusals alone, which may cost it less: of harmless prompts,
    whose answers need not be told from babble for the table."""
    found: Judge = getattr(judge, "of_refusals", judge)
    return found


def check_judge(judge: Any) -> None:
    """Raise InputError where what was given is no judge."""
    if isinstance(judge, type):
        raise InputError(f"a judge must be an object, not {described(judge)}: give one it makes")
    for name in ("name", "record", "judge"):
        if not hasattr(judge, name):
            raise InputError(
                f"{described(judge)} is no judge, for it has no {name!r}: give one, as "
                "KeywordJudge()"
            )


def check_pairs(prompts: Sequence[str], replies: Sequence[str]) -> None:
    """Raise InputError where what is to be judged is not a list of texts with a reply to each."""
    for name, texts in (("prompts", prompts), ("replies", replies)):
        if isinstance(texts, str) or not isinstance(texts, Sequence):
            raise InputError(f"{name} must be a list of texts, not {described(texts)}")
        for place, one in enumerate(texts):
            if not isinstance(one, str):
                raise InputError(f"{name} must be texts, not {described(one)} at place {place}")
    if len(prompts) != len(replies):
        raise InputError(
            f"there are {len(prompts)} prompts and {len(replies)} replies: give one reply each"
        )


def judgements(judge: Judge, prompts: Sequence[str], replies: Sequence[str]) -> list[Judgement]:
    """What a judge says of each reply; raises InputError where it is asked for something else than
    pairs of texts, or says something else than one `Judgement` a reply, which would count for other
    replies than it was made of."""
    check_pairs(prompts, replies)
    found = list(judge.judge(prompts, replies))
    if len(found) != len(replies):
        raise InputError(
            f"judge {judge.name} gave {len(found)} judgements of {len(replies)} replies: it must "
            "give one each, in their order"
        )
    for one in found:
        if not isinstance(one, Judgement) or not isinstance(one.verdict, Verdict):
            raise InputError(
                f"judge {judge.name} must give Judgement(Verdict...) of each reply, not {one!r}"
            )
    return found
