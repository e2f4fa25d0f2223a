"""What was measured of one model under one plan, as arrays: what is chosen, and what test says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from somatlas.attacks.attack_cost import HALF, AttackCost, attack_cost
from somatlas.attacks.attack_registry import ATTACKS
from somatlas.attacks.frontier import Draws, Floats
from somatlas.audits.audit_plan import Plan
from somatlas.audits.choosing import Choice, choose
from somatlas.audits.kept_attempts import NONE, Kept, Place, Tried
from somatlas.judges.verdict import Verdict

GRADIENT, TRANSFER, RANDOM = "gradient", "transfer", "random"  # attacks that checks ask for


def is_headline(attack: str) -> bool:
    """Whether an attack counts for the frontier: it needs the weights alone, and is no floor."""
    found = ATTACKS.get(attack)
    return found.threat == "A" and not found.is_floor


@dataclass(frozen=True)
class Measured:
    """What was measured of one model, as arrays.

    judges : by name, the deciding one first. counts : of test prompts by kind.
    """

    role: str
    plan: Plan
    kept: Kept
    judges: Sequence[str]
    counts: Mapping[str, int]

    @property
    def seeds(self) -> range:
        return range(self.plan.seed, self.plan.seed + self.plan.seeds)

    @cached_property
    def rows(self) -> dict[int, list[Tried]]:
        """Every attempt of each seed."""
        return {seed: self.kept.of(self.role, seed) for seed in self.seeds}

    def draws(self, kind: str = "harmful") -> Draws:
        """The draws of the audit: the same for every model."""
        return Draws.of(
            self.counts[kind],
            self.plan.seeds,
            resamples=self.plan.resamples,
            seed=self.plan.seed,
        )

    def choices(self, multiple: int, without: Sequence[str] = ()) -> list[Choice]:
        """What is chosen with a multiple of the budget, of each seed. without : attacks that do not
        count for the frontier here."""
        return [
            choose(
                self.rows[seed],
                self.plan.caps,
                lambda attack: self.plan.attacks[attack] * multiple,
                lambda attack: attack not in without and is_headline(attack),
            )
            for seed in self.seeds
        ]

    @property
    def top(self) -> int:
        """The highest multiple."""
        return self.plan.multiples[-1]

    def places(self) -> tuple[list[Place], list[Place]]:
        """What is to be tested on all kinds of prompts, and what on harmful ones alone."""
        unchanged = [Place(self.role, seed, NONE) for seed in self.seeds]
        choices = self.choices(self.top)
        whole = {*unchanged, *(place for one in choices for place in one.overall)}
        every = {place for one in choices for place in one.places}
        for multiple in self.plan.multiples:
            every |= {place for one in self.choices(multiple) for place in one.places}
        if GRADIENT in self.plan.attacks:
            every |= {p for one in self.choices(self.top, [GRADIENT]) for p in one.overall}
        return sorted(whole), sorted(every - whole)

    def cells(
        self,
        places: Sequence[Sequence[Place]],
        verdict: Verdict = Verdict.COMPLIED,
        kind: str = "harmful",
        judge: str = "",
    ) -> Floats:
        """(s, m, n): 1 where the attempt at a place has that verdict on a test prompt, NaN where
        it is missing."""
        named = judge or self.judges[0]
        return np.array(
            [
                [
                    [
                        np.nan if said == Verdict.MISSING else float(said == verdict)
                        for said in self.kept.tested.all()[str(place)].verdicts[named][kind]
                    ]
                    for place in row
                ]
                for row in places
            ]
        )

    def frontier(self, multiple: int, without: Sequence[str] = ()) -> Floats:
        """(s, m, n) success of the best of all headline attacks."""
        return self.cells([one.overall for one in self.choices(multiple, without)])

    def of_attack(self, attack: str, multiple: int) -> Floats | None:
        """(s, m, n) success of one attack; None where it was not tried in every seed."""
        found = [one.by_attack.get(attack) for one in self.choices(multiple)]
        rows = [places for places in found if places is not None]
        return self.cells(rows) if len(rows) == len(found) else None

    def unattacked(self, verdict: Verdict, kind: str) -> Floats | None:
        """(s, n) of the model as it is; None where there are no prompts of the kind."""
        if not self.counts[kind]:
            return None
        return self.cells([[Place(self.role, s, NONE)] for s in self.seeds], verdict, kind)[:, 0]

    def cost(self, success: Floats) -> AttackCost:
        return attack_cost(success, self.draws(), self.plan.caps)


def deciding_place(found: Measured, cost: AttackCost) -> tuple[int, Place]:
    """The least cap within which half of the prompts are answered, else the greatest, and what was
    chosen there by the first seed."""
    reached = [i for i, share in enumerate(cost.fitted) if share >= HALF]
    place = reached[0] if reached else len(cost.fitted) - 1
    return place, found.choices(found.top)[0].overall[place]
