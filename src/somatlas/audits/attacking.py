"""Carry out attacks on val: every attempt measured once and kept."""

from __future__ import annotations

import time
from collections.abc import Callable

from somatlas.attacks.attack import Attempt, Outcome, Rounds
from somatlas.attacks.attack_registry import ATTACKS, make_attack
from somatlas.attacks.measuring import measured
from somatlas.audits.bench import Bench
from somatlas.audits.kept_attempts import NONE, Family, Kept, Place, Tried
from somatlas.errors import InputError
from somatlas.fleet import deal
from somatlas.progress import Advance, ignore
from somatlas.prompts.prompt_set import texts

UNCHANGED = Attempt(NONE, NONE, 0, {})


class _CannotBeTriedError(Exception):
    """An attack is not possible on this model, for the reason that it gives."""


class Attacking:
    """The attacks on one model. It holds the attempts that were made here, by their place.

    say : told a line an attack. Where an attack is asked for again, its kept outcomes are sent to
    it, and it makes the same attempts as before.
    """

    def __init__(self, bench: Bench, kept: Kept, say: Callable[[str], None]) -> None:
        self.bench, self.kept, self.say = bench, kept, say
        self._made: dict[Place, Attempt] = {}

    def run(self, seed: int, name: str, advance: Advance = ignore) -> None:
        """Try an attack, unless it is done; advance is told of all its trials, tried or not."""
        place = Place(self.bench.role, seed, name)
        trials = self.bench.means.plan.trials(name)
        if place.family in self.kept.families:
            advance(trials)
            return
        start, told = time.monotonic(), 0

        def count(done: int) -> None:
            nonlocal told
            told += done
            advance(done)

        if reason := self._left_out(name):
            family = Family(left_out=reason)
        else:
            try:
                self._carry_out(seed, name, count)
                family = Family(round(time.monotonic() - start, 2))
            except _CannotBeTriedError as error:
                family = Family(left_out=str(error))
        advance(trials - told)
        self.kept.families.put({place.family: family})
        if family.left_out:
            self.say(f"{self.bench.lm.name}: {name} left out: {family.left_out}")

    def unchanged(self, seed: int) -> None:
        """Measure the model as it is on val."""
        place = Place(self.bench.role, seed, NONE)
        if str(place) not in self.kept.attempts:
            self._measure(seed, [(place, UNCHANGED)])
        self._made[place] = UNCHANGED

    def attempt(self, place: Place) -> Attempt:
        """The attempt of a place, made again where it was made before an interruption."""
        if place not in self._made:
            self._carry_out(place.seed, place.attack, ignore)
        return self._made[place]

    def _left_out(self, name: str) -> str:
        attack, plan = ATTACKS.get(name), self.bench.means.plan
        if attack.needs_consent and not plan.relearn:
            return "it trains the model to comply, and runs only with --relearn"
        if attack.needs_other and self.bench.other is None:
            return "it needs a second model, which only MODEL has, with --against"
        return ""

    def _carry_out(self, seed: int, name: str, advance: Advance) -> None:
        bench, plan = self.bench, self.bench.means.plan
        attack = make_attack(name, plan.attack_settings.get(name))
        rounds = attack.attempts(bench.target(seed), plan.trials(name))
        number = 0
        batch = _next(rounds, None)
        while batch:
            places = [Place(bench.role, seed, name, number + i) for i in range(len(batch))]
            number += len(batch)
            found = list(zip(places, batch, strict=True))
            self._made.update(found)
            for lanes in deal(found, bench.means.lanes):
                self._measure(seed, [one for one in lanes if not self._is_kept(*one)])
                advance(len(lanes))
            known = self.kept.attempts.all()
            batch = _next(rounds, [known[str(place)].outcome for place in places])

    def _is_kept(self, place: Place, attempt: Attempt) -> bool:
        kept = self.kept.attempts.get(str(place))
        if kept is None:
            return False
        if (kept.name, kept.k) != (attempt.name, attempt.k):
            raise InputError(
                f"attack {place.attack!r} makes {attempt.name!r} where it made {kept.name!r} "
                "before: its code has changed since, so give another --name"
            )
        return True

    def _measure(self, seed: int, lanes: list[tuple[Place, Attempt]]) -> None:
        if not lanes:
            return
        bench = self.bench
        attempts = [attempt for _, attempt in lanes]
        harmful = texts(bench.means.parts.val.harmful)
        outcomes = measured(bench.asking, attempts, harmful, bench.on_val)
        self.kept.attempts.put(
            {
                str(place): Tried(
                    place.role,
                    seed,
                    place.attack,
                    place.number,
                    attempt.name,
                    attempt.k,
                    type(attempt).openings is not Attempt.openings,
                    dict(attempt.about),
                    outcome,
                )
                for (place, attempt), outcome in zip(lanes, outcomes, strict=True)
            }
        )


def _next(rounds: Rounds, outcomes: list[Outcome] | None) -> list[Attempt] | None:
    """The next round, told what became of the last; None where there is none."""
    try:
        return next(rounds) if outcomes is None else rounds.send(outcomes)
    except StopIteration:
        return None
    except InputError as error:
        raise _CannotBeTriedError(str(error)) from None
