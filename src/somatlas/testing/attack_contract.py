"""What every attack must do, whatever it tries."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from somatlas.attacks.attack import THREATS, Attack, Attempt, Outcome
from somatlas.attacks.target import Target


class AttackContract:
    """Inherit it, write `make` and `target`, and let pytest find the class. Nothing is generated:
    outcomes are made up of the attempts' names."""

    budget = 9  # attempts
    applied = 4  # of them that are carried out on the model

    @abstractmethod
    def make(self) -> Attack:
        """The attack."""

    @abstractmethod
    def target(self) -> Target:
        """A small model under attack, the same each time but made anew."""

    def test_it_says_what_it_is(self) -> None:
        cls = type(self.make())
        for text in (cls.name, cls.title, cls.summary):
            assert text.strip() == text != ""
            assert "\n" not in text
        assert not cls.summary.endswith(".")
        assert cls.threat in THREATS

    def test_kept_outcomes_give_the_same_attempts_and_a_higher_budget_more_of_them(self) -> None:
        found, more = self._made(self.budget), self._made(self.budget + 3)
        assert 0 < len(found) <= self.budget
        assert len(more) >= len(found)
        for one, other in zip(found, more, strict=False):
            assert (one.name, one.k, one.about) == (other.name, other.k, other.about)
        self._check_described(more)

    def _check_described(self, found: Sequence[Attempt]) -> None:
        """Names are the attempts' own, and what they are made of is plain."""
        assert {attempt.family for attempt in found} == {self.make().name}
        assert len({attempt.name for attempt in found}) == len(found)
        for attempt in found:
            assert json.loads(json.dumps(attempt.about))
            assert attempt.k >= 0

    def test_the_model_is_as_it_was_bit_for_bit(self) -> None:
        target = self.target()
        before = _logits(target)
        attempts = self._made(self.applied, target)
        assert torch.equal(_logits(target), before)
        for attempt in attempts:
            with attempt.applied(target.lm):
                during = _logits(target)
            opens = attempt.openings(target.lm, ["Hello"], 1) is not None
            assert opens or not torch.equal(during, before), attempt.name
            assert torch.equal(_logits(target), before), attempt.name

    def _made(self, budget: int, target: Target | None = None) -> list[Attempt]:
        rounds = self.make().attempts(target or self.target(), budget)
        found: list[Attempt] = []
        batch = next(rounds, None)
        while batch:
            found += batch
            try:
                batch = rounds.send([_outcome(attempt.name) for attempt in batch])
            except StopIteration:
                break
        return found


def _outcome(name: str) -> Outcome:
    """Made up, the same for the same name."""
    asr, kl = (byte / 255 for byte in hashlib.sha256(name.encode()).digest()[:2])
    return Outcome(asr, 1 - asr, 0.0, 0.0, kl)


@torch.no_grad()
def _logits(target: Target) -> Tensor:
    ids = [target.lm.token_ids(prompt.text) for prompt in target.val.harmful[:2]]
    rows = [target.lm.model(input_ids=torch.tensor([row])).logits[0] for row in ids]
    return torch.cat(rows)
