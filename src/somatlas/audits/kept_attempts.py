"""What an audit has measured so far, kept as it comes: a killed one goes on from here.

FOLDER/attempts.jsonl    a line an attempt: what it was and what it did on val
FOLDER/families.jsonl    a line an attack that came to its end, or that could not be tried
FOLDER/tested.jsonl      a line an attempt that was chosen: its verdicts and drift on test
FOLDER/models.jsonl      a line a model: what must be the same for the audit to go on
FOLDER/recognition.jsonl a line an edit under which harm recognition was measured
FOLDER/reasoning.jsonl   a line an edit under which a model that reasons was asked in three ways
FOLDER/replies.jsonl     the replies themselves, which no other file and no page holds
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from somatlas.attacks.attack import Outcome
from somatlas.attacks.attack_cost import Estimate
from somatlas.files import JsonlCache, appended_rows, rewrite_rows
from somatlas.records import row_reader

T = TypeVar("T")
NONE = "none"  # the model as it is, as an attack of one attempt


@dataclass(frozen=True, order=True)
class Place:
    """Which attempt: of the model in a role ("model" or "against"), of a seed, of an attack."""

    role: str
    seed: int
    attack: str
    number: int = 0

    def __str__(self) -> str:
        return f"{self.role}/{self.seed}/{self.attack}/{self.number}"

    @property
    def family(self) -> str:
        """The key of its attack."""
        return f"{self.role}/{self.seed}/{self.attack}"


@dataclass(frozen=True)
class Tried:
    """An attempt and its outcome on val. opened : replies were begun for the model."""

    role: str
    seed: int
    attack: str
    number: int
    name: str
    k: int
    opened: bool
    about: Mapping[str, Any]
    outcome: Outcome

    @property
    def place(self) -> Place:
        return Place(self.role, self.seed, self.attack, self.number)


@dataclass(frozen=True)
class Known:
    """Of an attempt that was made before: what it must be again, and what became of it."""

    name: str
    k: int
    outcome: Outcome


@dataclass(frozen=True)
class Family:
    """An attack that is done: after how many attempts, and why, where it was left out."""

    attempts: int
    left_out: str = ""


@dataclass(frozen=True)
class Identity:
    """What a model must be for an audit to go on. asked : a digest of how it is asked."""

    name: str
    weights: str
    asked: str


@dataclass(frozen=True)
class Recognition:
    """Of test prompts, under one edit.

    harmless, borderline : harmful ones against these, None where there are none. length : harmful
    against harmless by the number of tokens alone, whichever way. layers : that the probe reads.
    """

    harmless: Estimate
    borderline: Estimate | None
    length: Estimate
    layers: tuple[int, ...]


@dataclass(frozen=True)
class Tested:
    """A chosen attempt on test.

    verdicts : judge -> kind of prompts -> a verdict a prompt. kl : of each harmless reply, nats a
    token. length, repetition : of each reply to a harmless prompt, where those were made.
    """

    verdicts: Mapping[str, Mapping[str, Sequence[str]]]
    kl: Sequence[float]
    length: Sequence[float] = field(default_factory=list)
    repetition: Sequence[float] = field(default_factory=list)

    @property
    def replies(self) -> int:
        """How many were made."""
        return max((sum(map(len, own.values())) for own in self.verdicts.values()), default=0)

    def has(self, kinds: Sequence[str]) -> bool:
        """Whether prompts of all these kinds were answered."""
        return all(set(kinds) <= set(own) for own in self.verdicts.values())


@dataclass(frozen=True)
class Reasoned:
    """A chosen attempt on test with its reasoning regenerated, fixed and absent.

    verdicts : of each of these columns, one a prompt, by the deciding judge. absent_by : what kept
    the model from reasoning. tokens : of its reasoning at most, and of its answer. cut, without :
    where reasoning was made, on how many prompts it was closed at that limit, or there was none.
    """

    verdicts: Mapping[str, Sequence[str]]
    absent_by: str
    tokens: int
    cut: Mapping[str, int]
    without: Mapping[str, int]

    @property
    def replies(self) -> int:
        """How many were made."""
        return sum(map(len, self.verdicts.values()))


class Kept:
    """The files of an audit's folder; in memory alone where there is none."""

    def __init__(self, folder: Path | None) -> None:
        def cache(name: str, kind: type[Any]) -> JsonlCache[str, Any]:
            return JsonlCache(None if folder is None else folder / name, asdict, _decoder(kind))

        self.attempts: JsonlCache[str, Tried] = cache("attempts.jsonl", Tried)
        self.families: JsonlCache[str, Family] = cache("families.jsonl", Family)
        self.tested: JsonlCache[str, Tested] = cache("tested.jsonl", Tested)
        self.reasoning: JsonlCache[str, Reasoned] = cache("reasoning.jsonl", Reasoned)
        self.recognition: JsonlCache[str, Recognition] = cache("recognition.jsonl", Recognition)
        self.models: JsonlCache[str, Identity] = cache("models.jsonl", Identity)
        self.replies = None if folder is None else folder / "replies.jsonl"

    def known(self, place: Place) -> tuple[Known, ...]:
        """What is known of an attack's first attempts, up to the first that is missing, or to the
        place's own."""
        found: list[Known] = []
        while len(found) <= place.number:
            row = self.attempts.get(str(replace(place, number=len(found))))
            if row is None:
                break
            found.append(Known(row.name, row.k, row.outcome))
        return tuple(found)

    def drop_untested(self) -> None:
        """Leave out replies of attempts whose test was interrupted, or has lost some of its replies
        since: they are made again."""
        if self.replies is None:
            return
        rows = appended_rows(self.replies)
        counts = Counter(map(_whose, rows))
        for tests in (self.tested, self.reasoning):
            for key, one in tests.all().items():
                if counts[key, tests is self.reasoning] < one.replies:
                    tests.forget(key)
        if self.replies.exists():
            kept = [
                row
                for row, (key, reasons) in zip(rows, map(_whose, rows), strict=True)
                if key in (self.reasoning if reasons else self.tested)
            ]
            rewrite_rows(self.replies, kept)

    def put_in_order(self, families: Sequence[Place]) -> None:
        """Have the files hold each attempt once, attack by attack in this order."""
        place = {one.family: i for i, one in enumerate(families)}
        self.attempts.arrange(lambda _, row: (place.get(row.place.family, len(place)), row.number))
        self.families.arrange(lambda key, _: place.get(key, len(place)))

    def of(self, role: str, seed: int) -> list[Tried]:
        """All attempts on a model under a seed, in the order of attacks and attempts."""
        rows = [r for r in self.attempts.all().values() if (r.role, r.seed) == (role, seed)]
        return sorted(rows, key=lambda row: (row.attack, row.number))


def _whose(row: Mapping[str, Any]) -> tuple[str, bool]:
    """Of which attempt a reply is, and whether it has a column of reasoning."""
    return str(row.get("attempt")), "reasoning" in row


def _decoder(kind: type[T]) -> Callable[[Mapping[str, Any]], T]:
    """Of a line's fields: a ValueError for those that are not as they were written."""
    read = row_reader(kind)

    def decode(row: Mapping[str, Any]) -> T:
        found = read({name: value for name, value in row.items() if name != "key"})
        if not isinstance(row["key"], str) or (
            isinstance(found, Tried) and row["key"] != str(found.place)
        ):
            raise ValueError(f"{row['key']!r} is not its key")
        return found

    return decode
