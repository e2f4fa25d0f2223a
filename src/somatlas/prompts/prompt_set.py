"""What a prompt set is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

from somatlas.arguments import check_choice, check_kind, check_unicode, check_whole, described
from somatlas.errors import InputError

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

    def __post_init__(self) -> None:
        if not isinstance(self.text, str):
            raise InputError(f"a prompt must be a text, not {described(self.text)}")
        for name in ("text", "category", "topic"):
            value = getattr(self, name)
            check_kind(f"a prompt's {name}", value, str, "a text")
            check_unicode(f"a prompt's {name}", value)

    @property
    def id(self) -> str:
        """What every file of a run calls the prompt: `prompt_id` of its text.

        >>> Prompt("How do kites fly?").id == Prompt("How do kites fly?", category="air").id
        True
        """
        return prompt_id(self.text)


@dataclass(frozen=True)
class PromptSplit:
    """One split of a prompt set: prompts that show the behaviour, that do not, and borderline ones.

    For refusal, `harmful` and `harmless` are the positive and the negative ones.
    """

    positive: Sequence[Prompt]
    negative: Sequence[Prompt]
    borderline: Sequence[Prompt] = ()

    @property
    def harmful(self) -> Sequence[Prompt]:
        return self.positive

    @property
    def harmless(self) -> Sequence[Prompt]:
        return self.negative


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

    @classmethod
    def of(
        cls,
        harmful: Iterable[str | Prompt],
        harmless: Iterable[str | Prompt],
        borderline: Iterable[str | Prompt] = (),
        *,
        seed: int = 0,
    ) -> PromptSet:
        """A set of prompts at hand, drawn into train, val and test, 60/20/20, by the seed.

        Prompts of one group stay in one split, those that name their split are in it, equal texts
        of a side are taken once, as of the files of a run; `notes` says what was left out. Raises
        InputError where a side has fewer than 10 prompts (borderline may have none), the sides
        share one, a prompt is blank or no text, or groups leave a split without prompts.

        >>> some = PromptSet.of(map(str, range(20)), map(str, range(20, 40)))
        >>> len(some.train.harmful), len(some.val.harmful), len(some.test.harmless)
        (12, 4, 4)
        """
        from somatlas.prompts.prompts_at_hand import drawn_set  # which reads this module

        return drawn_set(harmful, harmless, borderline, seed)

    @property
    def train(self) -> PromptSplit:
        """Prompts that directions are made of."""
        return self.split("train")

    @property
    def val(self) -> PromptSplit:
        """Prompts that layer and directions are chosen on."""
        return self.split("val")

    @property
    def test(self) -> PromptSplit:
        """Prompts that decide nothing: what is reported is measured on them."""
        return self.split("test")

    def split(self, name: Split) -> PromptSplit:
        """One split of all three sides; raises InputError for a name that is none."""
        check_choice("split", name, SPLITS)
        sides = (self.positive, self.negative, self.borderline)
        return PromptSplit(*(side.get(name, ()) for side in sides))

    def sha256(self) -> str:
        """Hash of all texts in their splits and order: what a run records of its prompts."""
        content = [
            [[p.text for p in side.get(split, ())] for split in SPLITS]
            for side in (self.positive, self.negative, self.borderline)
        ]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def limited(self, limits: Mapping[Split, int]) -> PromptSet:
        """At most limits[split] prompts of each kind, spread evenly over each list's order.

        Raises InputError for a name that is no split, or a limit that is no whole number.
        """
        for name, limit in limits.items():
            check_choice("split", name, SPLITS)
            check_whole(f"the limit of {name} prompts", limit, 0)

        def cut(side: Mapping[Split, Sequence[Prompt]]) -> dict[Split, Sequence[Prompt]]:
            return {s: spread(side.get(s, ()), limits.get(s, len(side.get(s, ())))) for s in SPLITS}

        return PromptSet(cut(self.positive), cut(self.negative), cut(self.borderline), self.notes)


def check_split(prompts: Any, *, needs: Iterable[str] = ("harmful", "harmless")) -> None:
    """Raise InputError where what was given is no `PromptSplit`, lacks prompts on a side that is
    needed, or holds something else than prompts."""
    if isinstance(prompts, PromptSet):
        raise InputError("prompts must be one split of the set: give its .train, .val or .test")
    if not isinstance(prompts, PromptSplit):
        raise InputError(
            f"prompts must be a split of a prompt set, not {described(prompts)}: give "
            "PromptSet.of(harmful, harmless).train, .val or .test"
        )
    for side in needs:
        if not getattr(prompts, side):
            raise InputError(f"the split has no {side} prompts: give some")
    for prompt in (*prompts.positive, *prompts.negative, *prompts.borderline):
        if not isinstance(prompt, Prompt):
            raise InputError(
                f"a split holds Prompt objects, not {described(prompt)}: give Prompt(text)"
            )


def prompt_id(text: str) -> str:
    """16 hexadecimal digits of the text's sha256: the same wherever the prompt stands."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def spread(items: Sequence[T], count: int) -> list[T]:
    """count items at even distances, so that sorted categories are all represented."""
    if count >= len(items):
        return list(items)
    return [items[i * len(items) // count] for i in range(count)]


def texts(prompts: Sequence[Prompt]) -> list[str]:
    """The requests themselves."""
    return [prompt.text for prompt in prompts]
