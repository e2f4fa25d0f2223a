"""Trials until the budget is spent, and the winner among them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from somatlas.progress import Advance, ignore
from somatlas.searches.rounds import PLACE, first_of_round
from somatlas.searches.space import Ranks, SubsetSpace
from somatlas.searches.study import Claim, Mourner, claim, finished, heartbeats, held, round_size

CONTENDERS = 4  # trials that are re-scored on prompts the search never saw
_POLL_S = 0.25


@dataclass(frozen=True)
class Outcome:
    """What one trial measured on the val prompts, as shares of their number.

    kl : multi-token KL on harmless replies, or None where it is no objective. pruned : the trial
    was ended once it could not come among the contenders, and asr is then what it could at most
    have reached.
    """

    asr: float
    refusal: float
    incoherent: float
    off_topic: float = 0.0
    kl: float | None = None
    pruned: bool = False


# Ranks of the trials to evaluate side by side, and the ASR below which one may be ended.
Evaluate = Callable[[Sequence[Ranks], float], Sequence[Outcome]]


def run_trials(
    study: Study,
    space: SubsetSpace,
    evaluate: Evaluate,
    trials: int,
    *,
    lanes: int = 1,
    advance: Advance = ignore,
) -> None:
    """Run trials until `trials` of them, or all points of the space, are finished.

    Other workers may do the same on the same study; this returns when the budget is met, by
    whomever. lanes : trials claimed and evaluated together, at most as many as a round has.
    """
    give_up_the_dead = Mourner(study)
    shown = 0
    while True:
        give_up_the_dead()
        done = min(len(finished(study)), trials)
        advance(done - shown)
        shown = done
        claims: list[Claim] = []
        while len(claims) < lanes and (one := claim(study, space, trials)) is not None:
            claims.append(one)
        if not claims:
            if len(finished(study)) >= min(trials, space.size):
                return
            if len(held(study)) == len(finished(study)):
                continue  # a trial was given up in between
            time.sleep(_POLL_S)
            continue
        try:
            before = first_of_round(claims[0].place, round_size(study))  # all are of one round
            with heartbeats(study, [one.trial for one in claims]):
                outcomes = evaluate(
                    [one.ranks for one in claims], contenders_threshold(study, before)
                )
        except BaseException:  # whoever goes on, in this process too, takes them up first
            for one in claims:
                study.tell(one.trial, state=TrialState.FAIL, skip_if_finished=True)
            raise
        for (trial, *_), outcome in zip(claims, outcomes, strict=True):
            for name, value in asdict(outcome).items():
                trial.set_user_attr(name, value)
            if outcome.pruned:
                trial.report(outcome.asr, step=0)
                study.tell(trial, state=TrialState.PRUNED, skip_if_finished=True)
            else:
                values = [outcome.asr] if outcome.kl is None else [outcome.asr, outcome.kl]
                study.tell(trial, values[: len(study.directions)], skip_if_finished=True)


def contenders_threshold(study: Study, before: int) -> float:
    """The ASR of the last contender among the places before: a trial below it is none.

    0 while there are few. Later ones do not count: whether a trial was ended tells the sampler.
    """
    outcomes = [_outcome(t) for t in finished(study) if t.user_attrs[PLACE] < before]
    best = sorted((o.asr for o in outcomes if not o.pruned), reverse=True)
    return best[CONTENDERS - 1] if len(best) >= CONTENDERS else 0.0


def finished_trials(study: Study, space: SubsetSpace) -> list[tuple[Ranks, Outcome]]:
    """Ranks and outcome of every finished trial, in the trials' order."""
    rows = []
    for trial in finished(study):
        ranks = space.canonical(trial.params)
        assert ranks is not None
        rows.append((ranks, _outcome(trial)))
    return rows


def contenders(
    rows: Sequence[tuple[Ranks, Outcome]], max_kl: float | None = None
) -> list[tuple[Ranks, Outcome]]:
    """The best of the trials that were not pruned, best first, `CONTENDERS` at most.

    By ASR, then fewer refusals, then lower KL, then earlier. max_kl : trials of a KL above it are
    left out; where that leaves none, the one of lowest KL is all.
    """
    whole = [row for row in rows if not row[1].pruned]
    if max_kl is not None:
        whole = within(whole, max_kl) or [min(whole, key=lambda row: row[1].kl or 0.0)]
    return sorted(whole, key=lambda row: (-row[1].asr, row[1].refusal, row[1].kl or 0.0))[
        :CONTENDERS
    ]


def within(rows: Sequence[tuple[Ranks, Outcome]], max_kl: float) -> list[tuple[Ranks, Outcome]]:
    """The trials that were not pruned whose KL is at most max_kl."""
    return [row for row in rows if not row[1].pruned and (row[1].kl or 0.0) <= max_kl]


def pareto_front(rows: Sequence[tuple[Ranks, Outcome]]) -> list[tuple[Ranks, Outcome]]:
    """The trials that no other beats in both ASR and KL, by rising ASR."""
    front: list[tuple[Ranks, Outcome]] = []
    lowest = float("inf")
    measured = [row for row in rows if row[1].kl is not None]
    for row in sorted(measured, key=lambda row: (-row[1].asr, row[1].kl)):
        if row[1].kl < lowest:  # type: ignore[operator]  # measured: never None
            lowest = row[1].kl  # type: ignore[assignment]
            front.append(row)
    return front[::-1]


def _outcome(trial: FrozenTrial) -> Outcome:
    return Outcome(**{name: trial.user_attrs[name] for name in Outcome.__dataclass_fields__})
