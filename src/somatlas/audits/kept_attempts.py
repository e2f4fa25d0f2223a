"""What an audit has measured so far, kept as it comes: a killed one goes on from here.

FOLDER/attempts.jsonl    a line an attempt: what it was and what it did on val
FOLDER/families.jsonl    a line an attack that came to its end, or that could not be tried
FOLDER/tested.jsonl      a line an attempt that was chosen: its verdicts and drift on test
FOLDER/recognition.jsonl a line an edit under which harm recognition was measured
FOLDER/reasoning.jsonl   a line an edit under which a model that reasons was asked in three ways
FOLDER/replies.jsonl     the replies themselves, which no other file and no page holds
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from somatlas.attacks.attack import Outcome
from somatlas.files import JsonlCache, appended_rows, rewrite_rows

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
    """An attack that is done, or why it was left out."""

    left_out: str = ""


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


class Kept:
    """The files of an audit's folder; in memory alone where there is none."""

    def __init__(self, folder: Path | None) -> None:
        def cache(name: str, decode: Any) -> JsonlCache[str, Any]:
            return JsonlCache(None if folder is None else folder / name, asdict, decode)

        self.attempts: JsonlCache[str, Tried] = cache("attempts.jsonl", _tried)
        self.families: JsonlCache[str, Family] = cache("families.jsonl", _of(Family))
        self.tested: JsonlCache[str, Tested] = cache("tested.jsonl", _of(Tested))
        self.reasoning: JsonlCache[str, Reasoned] = cache("reasoning.jsonl", _of(Reasoned))
        self.recognition: JsonlCache[str, Any] = JsonlCache(
            None if folder is None else folder / "recognition.jsonl", dict, _plain
        )
        self.models: JsonlCache[str, Any] = JsonlCache(
            None if folder is None else folder / "models.jsonl", dict, _plain
        )
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
        """Leave out replies of attempts whose test was interrupted: they are made again."""
        if self.replies is not None and self.replies.exists():
            rows = [
                row
                for row in appended_rows(self.replies)
                if row["attempt"] in (self.reasoning if "reasoning" in row else self.tested)
            ]
            rewrite_rows(self.replies, rows)

    def put_in_order(self, families: Sequence[Place]) -> None:
        """Have the files hold each attempt once, attack by attack in this order."""
        place = {one.family: i for i, one in enumerate(families)}
        self.attempts.arrange(lambda _, row: (place[row.place.family], row.number))
        self.families.arrange(lambda key, _: place[key])

    def of(self, role: str, seed: int) -> list[Tried]:
        """All attempts on a model under a seed, in the order of attacks and attempts."""
        rows = [r for r in self.attempts.all().values() if (r.role, r.seed) == (role, seed)]
        return sorted(rows, key=lambda row: (row.attack, row.number))


def _tried(row: Mapping[str, Any]) -> Tried:
    return Tried(**{**_plain(row), "outcome": Outcome(**row["outcome"])})


def _of(kind: type[T]) -> Any:
    def decode(row: Mapping[str, Any]) -> T:
        return kind(**_plain(row))

    return decode


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "key"}
