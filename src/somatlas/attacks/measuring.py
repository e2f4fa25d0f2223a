"""What attempts do to a model: replies, verdicts on them, drift."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from somatlas.ablation import LayerProjections, Projection
from somatlas.attacks.attack import Attempt, Outcome
from somatlas.fleet import deal
from somatlas.judges.verdict import Judge
from somatlas.measures.drift import Drift
from somatlas.searches.trials import Asking, outcome_shares


@dataclass(frozen=True)
class Said:
    """What the model said under an attempt, not judged yet, and the attempt's drift."""

    replies: list[str]
    kl: float

    def judged(self, judge: Judge, harmful: Sequence[str], max_missing: float) -> Outcome:
        """The attempt's outcome; raises InputError where the judge left more than that share of
        the replies without a verdict."""
        return Outcome(*outcome_shares(judge, harmful, self.replies, max_missing), self.kl)


def said_under(
    asking: Asking, attempts: Sequence[Attempt], harmful: Sequence[str], drift: Drift
) -> list[Said]:
    """Replies to harmful prompts, and drift on harmless replies, of each attempt."""
    answers = replies(asking, attempts, harmful, settled=True)
    return [
        Said(own, drift_of(attempt, drift)) for attempt, own in zip(attempts, answers, strict=True)
    ]


def measured(
    asking: Asking, attempts: Sequence[Attempt], harmful: Sequence[str], drift: Drift
) -> list[Outcome]:
    """An outcome an attempt: `said_under`, judged.

    Raises InputError where the judge left too many replies without a verdict.
    """
    return [
        said.judged(asking.judge, harmful, asking.max_missing)
        for said in said_under(asking, attempts, harmful, drift)
    ]


def replies(
    asking: Asking,
    attempts: Sequence[Attempt],
    prompts: Sequence[str],
    tokens: int | None = None,
    *,
    settled: bool = False,
) -> list[list[str]]:
    """The answers of the model to every prompt under each attempt, thoughts left out.

    Attempts that are ablations share batches, `asking.lanes` at a time; others are made alone.
    tokens : of a reply at most. settled : end replies once it is settled that they refuse, which
    changes no verdict; where a reply is opened for the model, its verdict is settled by none of its
    own words.
    """
    n = len(prompts)
    found: dict[int, list[str]] = {}
    for lanes in _lanes(attempts, asking.lanes):
        ablations = [attempts[i].ablation for i in lanes]
        if all(one is not None for one in ablations):
            known: list[Projection | LayerProjections] = [a for a in ablations if a is not None]
            watch = asking.watch(n, len(lanes)) if settled else None
            made = asking.replies(prompts, known, watch, tokens)
        else:
            (place,) = lanes
            with attempts[place].applied(asking.lm):
                openings = attempts[place].openings(asking.lm, prompts, asking.batch_size)
                watch = asking.watch(n, 1) if settled and openings is None else None
                made = asking.replies(prompts, (), watch, tokens, openings)
        for lane, place in enumerate(lanes):
            found[place] = made[lane * n : (lane + 1) * n]
    return [found[place] for place in range(len(attempts))]


def drift_of(attempt: Attempt, drift: Drift) -> float:
    """KL(model attacked || under the attempt), nats a token; 0 where it edits nothing."""
    if attempt.ablation is not None:
        return drift.under(attempt.ablation)
    with attempt.applied(drift.lm):
        return drift.under(None)


def _lanes(attempts: Sequence[Attempt], size: int) -> Iterator[list[int]]:
    """The places of attempts that are made together."""
    together = [i for i, attempt in enumerate(attempts) if attempt.ablation is not None]
    yield from deal(together, size)
    yield from ([i] for i in range(len(attempts)) if i not in together)
