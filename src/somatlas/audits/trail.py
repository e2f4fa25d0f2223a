"""An attack's attempts, made as far as the outcomes of those before are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from somatlas.attacks.attack import Attempt, Rounds
from somatlas.audits.kept_attempts import Known
from somatlas.errors import InputError


@dataclass(frozen=True)
class End:
    """There is no such attempt: the attack is done, or for this reason not possible."""

    reason: str = ""


@dataclass(frozen=True)
class Later:
    """The attempt is of a round that depends on outcomes which are not known yet."""


class Trail:
    """Attempts of one attack on one target, in order.

    A round is made once, whoever asks for which of its attempts: so an attack may be followed by
    several workers, and each is sent what the others have found.
    """

    def __init__(self, attack: str, rounds: Rounds) -> None:
        self._attack, self._rounds = attack, rounds
        self._made: list[Attempt] = []
        self._told = 0  # attempts whose outcomes the attack has been sent
        self._seen = 0  # attempts that were compared with what is known of them
        self._end: End | None = None

    def attempt(self, number: int, known: Sequence[Known]) -> Attempt | End | Later:
        """The attempt of a number. known : of the first attempts, those of all rounds before its
        own at least; with fewer the answer is `Later`.

        Raises InputError where an attempt that is known is another now.
        """
        while self._end is None and len(self._made) <= min(number, len(known)):
            self._go_on(known)
        self._compare(known)
        if number < len(self._made):
            return self._made[number]
        return self._end or Later()

    def _go_on(self, known: Sequence[Known]) -> None:
        """Make the next round; an error of the attack's is what it ends for."""
        try:
            if self._made:
                batch = self._rounds.send(
                    [one.outcome for one in known[self._told : len(self._made)]]
                )
            else:
                batch = next(self._rounds)
        except StopIteration:
            self._end = End()
        except InputError as error:
            self._end = End(str(error))
        else:
            self._told = len(self._made)
            self._made += batch

    def _compare(self, known: Sequence[Known]) -> None:
        both = zip(known[self._seen :], self._made[self._seen :], strict=False)
        for was, now in both:
            if (was.name, was.k) != (now.name, now.k):
                raise InputError(
                    f"attack {self._attack!r} makes {now.name!r} where it made {was.name!r} "
                    "before: its code has changed since, so give another --name"
                )
            self._seen += 1
