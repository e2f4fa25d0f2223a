"""Carry out attacks on val: every attempt measured once and kept.

What an attack tries next depends on what its attempts before did, and on nothing else. So in turn
of each attack, on each model, under each seed, the next attempts of its round go out as a piece of
work, and come back as outcomes: attacks run beside each other, whoever carries them out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from somatlas.attacks.attack import Attempt, Outcome
from somatlas.attacks.attack_registry import ATTACKS
from somatlas.attacks.measuring import Said, said_under
from somatlas.audits.audit_plan import Plan
from somatlas.audits.bench import Baseline, Bench, Held, Means
from somatlas.audits.kept_attempts import NONE, Family, Kept, Known, Place, Tried
from somatlas.audits.trail import End, Later
from somatlas.errors import InputError
from somatlas.fleet import Fleet, Work, deal
from somatlas.judges.registry import Judges, is_asked_by_driver
from somatlas.progress import Advance, progress
from somatlas.prompts.prompt_set import texts
from somatlas.searches.trials import LANES


@dataclass(frozen=True)
class Step:
    """An attempt that is asked for. known : of the attack's attempts before it."""

    place: Place
    known: tuple[Known, ...]


@dataclass(frozen=True)
class Made:
    """An attempt that was made. outcome : not judged yet where the driver asks the judge."""

    name: str
    k: int
    opened: bool
    about: Mapping[str, Any]
    outcome: Outcome | Said


Stepped = Made | End | Later


def step_work(held: Held, baselines: Mapping[str, Baseline]) -> Work[Step, Stepped]:
    """Attempts of one attack, measured side by side as far as they are of one round."""

    def work(steps: Sequence[Step], _advance: Advance) -> list[Stepped]:
        bench = held.bench(steps[0].place.role, baselines)
        found = [bench.attempt(step.place, step.known) for step in steps]
        attempts = [one for one in found if isinstance(one, Attempt)]
        outcomes = iter(_measured(bench, attempts))
        return [_made(one, next(outcomes)) if isinstance(one, Attempt) else one for one in found]

    return work


def _measured(bench: Bench, attempts: Sequence[Attempt]) -> list[Outcome | Said]:
    means = bench.means
    harmful = texts(means.parts.val.harmful)
    said = said_under(bench.asking, attempts, harmful, bench.on_val)
    if is_asked_by_driver(means.plan.judge):
        return list(said)
    return [one.judged(bench.asking.judge, harmful, means.max_missing) for one in said]


def _made(attempt: Attempt, outcome: Outcome | Said) -> Made:
    opened = type(attempt).openings is not Attempt.openings
    return Made(attempt.name, attempt.k, opened, dict(attempt.about), outcome)


class Attacking:
    """Every attack of a plan on every model. names : of the models, by role. judges : those that
    the driver asks. say : told a line an attack that is left out."""

    def __init__(
        self,
        fleet: Fleet[Held],
        means: Means,
        kept: Kept,
        names: Mapping[str, str],
        judges: Judges,
        say: Callable[[str], None],
    ) -> None:
        self.fleet, self.means, self.kept = fleet, means, kept
        self.names, self.judges, self.say = names, judges, say

    def carry_out(self, baselines: Mapping[str, Baseline]) -> None:
        """Try whatever is not kept yet; then what is kept stands in the plan's order."""
        plan, prepared = self.means.plan, self.fleet.prepared(step_work, baselines)
        families = list(_families(plan, list(self.names)))
        with progress("attempts", sum(_trials(plan, one) for one in families)) as advance:
            going = [one for one in families if not self._is_over(one, advance)]
            while going:
                # One worker finishes an attack before it begins another.
                now = going if self.fleet.workers > 1 else going[:1]
                pieces = [piece for one in now for piece in self._pieces(one, len(now))]
                for piece, results in zip(pieces, prepared.each(pieces), strict=True):
                    self._keep(piece, results, advance)
                going = [one for one in going if self._todo(one)]
        keys = [one.family for one in families if one.attack != NONE]
        counts = {one.family: _trials(plan, one) for one in families}
        if done := {key: Family(counts[key]) for key in keys if key not in self.kept.families}:
            self.kept.families.put(done)
        self.kept.put_in_order(families)

    def _is_over(self, family: Place, advance: Advance) -> bool:
        """Whether nothing of an attack is left to try; says so where it cannot be tried at all."""
        todo = self._todo(family)
        advance(_trials(self.means.plan, family) - len(todo))
        if todo and (reason := self._left_out(family)):
            self._end(family, End(reason), advance)
        return not self._todo(family)

    def _left_out(self, family: Place) -> str:
        if family.attack == NONE:
            return ""
        attack = ATTACKS.get(family.attack)
        if attack.needs_consent and not self.means.plan.relearn:
            return "it trains the model to comply, and runs only with --relearn"
        if attack.needs_other and not (family.role == "model" and "against" in self.names):
            return "it needs a second model, which only MODEL has, with --against"
        return ""

    def _todo(self, family: Place) -> list[Place]:
        """Its places that are not kept; where it has ended, those that it had and that were lost
        since."""
        ended = self.kept.families.get(family.family)
        count = _trials(self.means.plan, family) if ended is None else ended.attempts
        places = [replace(family, number=i) for i in range(count)]
        return [place for place in places if str(place) not in self.kept.attempts]

    def _pieces(self, family: Place, beside: int) -> list[list[Step]]:
        """Its next attempts, for as many workers as are left of those that are beside."""
        share = max(1, self.fleet.workers // beside)
        size = self.means.lanes or max(1, LANES // share)
        todo = self._todo(family)
        known = self.kept.known(todo[0])
        return deal([Step(place, known) for place in todo[: share * size]], size)

    def _keep(self, steps: Sequence[Step], results: Sequence[Stepped], advance: Advance) -> None:
        found = list(zip(steps, results, strict=True))
        rows = [self._tried(step.place, one) for step, one in found if isinstance(one, Made)]
        if rows:
            self.kept.attempts.put({str(row.place): row for row in rows})
            advance(len(rows))
        for step, one in found:
            if isinstance(one, End):
                self._end(step.place, one, advance)

    def _tried(self, place: Place, made: Made) -> Tried:
        outcome = made.outcome
        if isinstance(outcome, Said):
            judge = self.judges.get(self.means.plan.judge, None)
            harmful = texts(self.means.parts.val.harmful)
            outcome = outcome.judged(judge, harmful, self.means.max_missing)
        named = (place.role, place.seed, place.attack, place.number, made.name, made.k)
        return Tried(*named, made.opened, made.about, outcome)

    def _end(self, place: Place, end: End, advance: Advance) -> None:
        if left := self._todo(place):
            known = len(self.kept.known(replace(place, number=_trials(self.means.plan, place))))
            was = self.kept.families.get(place.family)
            if was is not None:
                raise InputError(
                    f"attack {place.attack!r} made {was.attempts} attempts before, of which some "
                    f"are lost, and makes {known} now: what it needs or its code has changed "
                    "since, so give another --name"
                )
            advance(len(left))
            self.kept.families.put({place.family: Family(known, end.reason)})
            if end.reason:
                self.say(f"{self.names[place.role]}: {place.attack} left out: {end.reason}")


def _families(plan: Plan, roles: Sequence[str]) -> Iterator[Place]:
    """What is tried, in order: of each model under each seed itself, as it is, and every attack."""
    for role in roles:
        for seed in range(plan.seed, plan.seed + plan.seeds):
            for attack in (NONE, *plan.attacks):
                yield Place(role, seed, attack)


def _trials(plan: Plan, family: Place) -> int:
    return 1 if family.attack == NONE else plan.trials(family.attack)
