"""What an attack is: rounds of attempts, each told what those before it did.

    target, budget  -- attempts -->  [Attempt, ...]  -- measured -->  [Outcome, ...]  -->  ...

A new attack derives from `Attack`, names itself and writes `rounds`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from somatlas.ablation import LayerProjections, Projection, edited_places
from somatlas.errors import InputError
from somatlas.exports.edited_model import check_editable
from somatlas.models.language_model import LanguageModel
from somatlas.models.output_maps import placed_output_maps, untie_head

if TYPE_CHECKING:
    from somatlas.attacks.target import Target

Threat = Literal["A", "B", "C"]
THREATS: Mapping[str, str] = {
    "A": "weights",
    "B": "weights, fine-tuning",
    "C": "weights, other model",
}
# What attacks' settings are of.
Count = Annotated[int, Field(ge=1)]
Counts = Annotated[tuple[Count, ...], Field(min_length=1)]
ROUND = 4  # attempts that are proposed from the same outcomes, as a search's trials


@dataclass(frozen=True)
class Outcome:
    """What was measured of an attempt on the prompts that the attacker searches on.

    asr, refusal, incoherent, off_topic : shares of the harmful prompts. kl : KL(model attacked ||
    under the attempt) on harmless replies, nats a token.
    """

    asr: float
    refusal: float
    incoherent: float
    off_topic: float
    kl: float


@dataclass(frozen=True)
class Attempt:
    """One edit of a model that an attack tries; of itself it edits nothing.

    family : the attack's name. name : unique in its family, and the same each time it is made. k :
    how many directions a write loses; 0 where the edit is of another kind. about : what it was made
    of, as plain JSON values.
    """

    family: str
    name: str
    k: int
    about: Mapping[str, Any] = field(hash=False)

    @property
    def ablation(self) -> Projection | LayerProjections | None:
        """The whole edit as hooks, where it can be one; several of them then share a batch."""
        return None

    def applied(self, lm: LanguageModel) -> AbstractContextManager[None]:
        """While active the model is edited; afterwards it is as it was, bit for bit."""
        return ExitStack()  # type: ignore[return-value]  # nothing to do

    def edited(self, lm: LanguageModel) -> AbstractContextManager[None]:
        """While active the same is in the model's weights, so that it can be saved.

        Raises InputError where an attempt is no edit of weights, or the weights cannot be edited.
        """
        raise InputError(f"{self.family}, {self.name} edits no weights: there is nothing to save")

    def openings(
        self, lm: LanguageModel, prompts: Sequence[str], batch_size: int
    ) -> list[list[int]] | None:
        """Token ids that the reply to each prompt is made to begin with; None for nothing."""
        return None


@dataclass(frozen=True)
class Ablated(Attempt):
    """An attempt that ablates directions: the same ones from every write, or each block's own."""

    projection: Projection | LayerProjections = field(compare=False)

    @property
    def ablation(self) -> Projection | LayerProjections:
        return self.projection

    def applied(self, lm: LanguageModel) -> AbstractContextManager[None]:
        return lm.ablate(self.projection)

    def edited(self, lm: LanguageModel) -> AbstractContextManager[None]:
        """An output head that shares the embedding's matrix gets one of its own first, unless it is
        to be edited with it."""
        check_editable(lm)
        if not lm.edit_head:
            untie_head(lm.model)
        return edited_places(placed_output_maps(lm.model, lm.structure), self.projection)


Rounds = Generator[list[Attempt], list[Outcome], None]


def in_rounds(attempts: Sequence[Attempt]) -> Rounds:
    """Attempts that are the same whatever became of those before."""
    for start in range(0, len(attempts), ROUND):
        yield list(attempts[start : start + ROUND])


class Attack(ABC):
    """Tries edits of a model, each round in the light of the outcomes of those before.

    A subclass declares the class attributes below and writes `rounds`; parameters of its `__init__`
    are its own settings. It keeps nothing between calls.

    name : in the registry. title : in tables. summary : what it tries, one line without a stop.
    threat : what the attacker needs: "A" the weights, "B" fine-tuning too, "C" another model too.
    is_floor : it knows nothing of the model: others are measured by it. needs_consent : it trains
    the model to comply, and runs only where that is asked for. needs_other : without `target.other`
    it has nothing to try.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    summary: ClassVar[str]
    threat: ClassVar[Threat] = "A"
    is_floor: ClassVar[bool] = False
    needs_consent: ClassVar[bool] = False
    needs_other: ClassVar[bool] = False

    def attempts(self, target: Target, budget: int) -> Rounds:
        """Rounds of attempts, `budget` in all at most; each is sent its outcomes, in its order.

        A pure function of the target, its seed and the outcomes sent: sending kept outcomes again
        gives the same attempts, so a killed audit goes on where it was, and several processes may
        follow one attack. Other attempts are measured on the model while it waits for outcomes. A
        higher budget begins as a lower one does. Raises InputError where the attack is not possible
        on this target.

            rounds = attack.attempts(target, 16)
            batch = next(rounds)
            batch = rounds.send(measured(...))  # StopIteration: that was all
        """
        self.check(target)
        left = budget
        rounds = self.rounds(target)
        try:
            batch = next(rounds, None)
            while batch and left > 0:
                outcomes = yield batch[:left]
                left -= len(batch)
                batch = rounds.send(outcomes) if left > 0 else None
        except StopIteration:
            return

    @property
    def most_directions(self) -> int:
        """How many directions it makes at once, whatever the model; 0 where that depends on it."""
        return 0

    def check_width(self, d_model: int) -> None:
        """Raise InputError where the model's vectors have fewer dimensions than that."""
        if self.most_directions > d_model:
            raise InputError(
                f"attack {self.name!r} is to make {self.most_directions} directions of vectors of "
                f"{d_model} dimensions: lower its ks to {d_model} at most"
            )

    def check(self, target: Target) -> None:
        """Raise InputError where the attack has nothing to try on this target. A subclass adds its
        own."""
        self.check_width(target.lm.d_model)
        if self.needs_other and target.other is None:
            raise InputError(f"attack {self.name!r} needs a second model: name one with --against")

    @abstractmethod
    def rounds(self, target: Target) -> Rounds:
        """The same without a budget: rounds until nothing is left to try, or for ever."""
