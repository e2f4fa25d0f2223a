"""Trials until the budget is spent, and the winner among them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass

from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from somatlas.errors import InputError
from somatlas.fleet import deal
from somatlas.progress import Advance, ignore
from somatlas.searches.rounds import PLACE, first_of_round
from somatlas.searches.space import Ranks, SubsetSpace
from somatlas.searches.study import finished, give_up_unfinished, round_size

CONTENDERS = 4  # trials that are re-scored on prompts the search never saw


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


# Given points of one round and the ASR below which a trial may be ended: their outcomes, in order.
Evaluate = Callable[[Sequence[Ranks], float], Iterable[Outcome]]


def run_trials(
    study: Study,
    space: SubsetSpace,
    evaluate: Evaluate,
    trials: int,
    *,
    advance: Advance = ignore,
) -> None:
    """Run trials until `trials` of them, or all points of the space, are finished.

    Of each round all points are asked for at once; outcomes are told in their order, each as soon
    as it is there. One process at a time may do this on a study: raises InputError where another
    one has begun to.
    """
    give_up_unfinished(study)
    budget, size = min(trials, space.size), round_size(study)
    done = min(len(finished(study)), budget)
    advance(done)
    while done < budget:
        first = first_of_round(done, size)
        asked = [_ask(study, space) for _ in range(min(first + size, budget) - done)]
        points = [point for _, point in asked]
        outcomes = evaluate(points, contenders_threshold(study, first))
        for (trial, _), outcome in zip(asked, outcomes, strict=True):
            _tell(study, trial, outcome)
            advance(1)
        done += len(asked)


def in_lanes(evaluate: Evaluate, lanes: int) -> Evaluate:
    """The same with at most so many points at a time."""

    def each(points: Sequence[Ranks], threshold: float) -> Iterator[Outcome]:
        for some in deal(points, lanes):
            yield from evaluate(some, threshold)

    return each


def _ask(study: Study, space: SubsetSpace) -> tuple[Trial, Ranks]:
    trial = study.ask(space.distributions)
    _ = trial.relative_params  # else Optuna asks no sampler where a rank has one value
    ranks = space.canonical(trial.params)
    assert ranks is not None
    return trial, ranks


def _tell(study: Study, trial: Trial, outcome: Outcome) -> None:
    try:
        for name, value in asdict(outcome).items():
            trial.set_user_attr(name, value)
        if outcome.pruned:
            trial.report(outcome.asr, step=0)
            study.tell(trial, state=TrialState.PRUNED)
        else:
            values = [outcome.asr] if outcome.kl is None else [outcome.asr, outcome.kl]
            study.tell(trial, values[: len(study.directions)])
    except (ValueError, RuntimeError):  # Optuna's, of a trial that is finished
        raise InputError(
            f"the study {study.study_name!r} is being searched by another command, which has given "
            "up this one's trials: let one of them finish"
        ) from None


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
