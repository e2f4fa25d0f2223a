"""Carries an attack out on a planted model, for tests."""

from __future__ import annotations

from planted import ANSWER, Planted
from somatlas.attacks.attack import Attack, Attempt, Outcome
from somatlas.attacks.measuring import measured
from somatlas.attacks.target import Target
from somatlas.judges.keyword import KeywordJudge
from somatlas.measures.drift import Drift
from somatlas.prompts.prompt_set import texts
from somatlas.searches.trials import Asking


def target_of(model: Planted, **more: object) -> Target:
    """The attacker's view of it."""
    given = {"screen_prompts": 12, "batch_size": 64, "asking": asking_of(model), **more}
    return Target(model.lm, model.train, model.val, model.refusal_tokens, **given)  # type: ignore[arg-type]


def asking_of(model: Planted, lanes: int = 4) -> Asking:
    """Refusals by their words; its replies need no check of sense."""
    return Asking.by(KeywordJudge(), model.lm, tokens=6, lanes=lanes)


def drift_of(model: Planted, count: int = 12) -> Drift:
    """On its own replies to harmless prompts."""
    prompts = texts(model.val.harmless)[:count]
    return Drift(model.lm, prompts, [" ".join(ANSWER)] * count, 64, tokens=6)


def carried_out(
    attack: Attack, model: Planted, budget: int, **more: object
) -> list[tuple[Attempt, Outcome]]:
    """Every attempt with its outcome, on the first twelve val prompts."""
    asking, drift = asking_of(model), drift_of(model)
    prompts = texts(model.val.harmful)[:12]
    found: list[tuple[Attempt, Outcome]] = []
    rounds = attack.attempts(target_of(model, **more), budget)
    batch = next(rounds, None)
    while batch:
        outcomes = measured(asking, batch, prompts, drift)
        found += zip(batch, outcomes, strict=True)
        try:
            batch = rounds.send(outcomes)
        except StopIteration:
            batch = None
    return found
