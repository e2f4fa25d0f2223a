"""Which ranks to ablate together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import SQLAlchemyError
from torch import Tensor

from somatlas.ablation import Projection
from somatlas.errors import without_password
from somatlas.files import changed
from somatlas.fleet import Prepared, Work, deal
from somatlas.judges.registry import find_kind, is_asked_by_driver
from somatlas.measures.drift import Drift
from somatlas.progress import Advance, note, progress
from somatlas.prompts.prompt_set import texts
from somatlas.runs.answer_check import check_record
from somatlas.runs.contents import Contents
from somatlas.runs.folder import Run
from somatlas.searches import (
    Outcome,
    Ranks,
    SubsetSampler,
    SubsetSpace,
    finished_trials,
    open_storage,
    open_study,
    run_trials,
    storage_error,
    storage_url,
)
from somatlas.searches.loop import Evaluate
from somatlas.searches.samplers import make_proposer
from somatlas.searches.search import SearchPrompts, found, study_directions
from somatlas.searches.study import agree_on_directions
from somatlas.searches.trials import LANES, REFUSAL_TOKENS, Asking, Replied, Trials

Point = tuple[Ranks, float]  # ranks, and the ASR below which their trial may be ended


def search_stage(run: Run) -> None:
    """Trials on val prompts; then the best of them again on prompts that the search never saw."""
    run.needs("map")
    config = run.config
    directions = Contents(run.folder).directions
    space = SubsetSpace(min(config.candidates, len(directions)), config.k, config.ordered)
    vectors = directions.vectors[: space.candidates].numpy()
    proposer = make_proposer(config.sampler, config.sampler_settings, ordered=config.ordered)
    sampler = SubsetSampler(
        space, config.seed, vectors, config.startup, proposer, config.round_size
    )
    prompts = SearchPrompts.of(run.prompts.val, config.val_prompts, config.selection_prompts)
    url = config.storage or storage_url(run.path("study.db"))
    run.begin("search")
    try:
        study = open_study(
            open_storage(url),
            f"{run.folder.parent.name}/{config.name}",
            sampler,
            study_directions(config.objective),
            run.study_settings(),
        )
        agree_on_directions(study, vectors)
        seen, unseen = texts(prompts.seen), texts(prompts.unseen)
        check = check_record(run)
        limited = config.objective == "asr,kl" or config.max_kl is not None
        drift = _drift_on(run, texts(prompts.harmless), check) if limited else None
        _say_who_idles(run)
        with progress("search", min(config.trials, space.size)) as advance:

            def told(trials: int) -> None:
                advance(trials)
                if config.storage is None:
                    changed(run.path("study.db"))  # by SQLite

            evaluate = _evaluate(run, _OnVal(directions.vectors, seen, drift, check))
            run_trials(study, space, evaluate, config.trials, advance=told)
        rows = finished_trials(study, space)
    except (StorageInternalError, SQLAlchemyError) as error:
        raise storage_error(url, error) from None
    result = found(
        lambda ranks: Projection(directions.vectors[list(ranks)], config.mode),
        _evaluate(run, _OnVal(directions.vectors, unseen, None, check)),
        rows,
        prompts,
        max_kl=config.max_kl,
        storage=without_password(config.storage) if config.storage else "study.db",
        coherence=None if find_kind(config.judge).tells_babble else check,
    )
    result.write(run.folder)


@dataclass(frozen=True)
class _OnVal:
    """What trials are made of. drift : harmless prompts and the unchanged model's replies to them,
    where KL is measured. check : the record of the check of answers."""

    vectors: Tensor
    prompts: list[str]
    drift: tuple[list[str], list[str]] | None
    check: Mapping[str, Any] | None


def trial_work(run: Run, of: _OnVal) -> Work[Point, Outcome | Replied]:
    """Trials side by side, of one threshold; not judged yet where the driver asks the judge."""
    run.use_check(of.check)
    how = asking(run)
    drift = None if of.drift is None else Drift(run.lm, *of.drift, how.batch_size)
    trials = Trials(how, of.vectors, of.prompts, mode=run.config.mode, drift=drift)

    def work(points: Sequence[Point], _advance: Advance) -> list[Outcome | Replied]:
        found = trials.replied([ranks for ranks, _ in points], points[0][1])
        if is_asked_by_driver(run.config.judge):
            return list(found)
        return [one.judged(how.judge, of.prompts, how.max_missing) for one in found]

    return work


def _evaluate(run: Run, of: _OnVal) -> Evaluate:
    """Outcomes of points by the run's fleet, as many to a piece as are made side by side."""
    prepared: Prepared[Point, Outcome | Replied] = run.fleet.prepared(trial_work, of)
    config = run.config

    def evaluate(points: Sequence[Ranks], threshold: float) -> Iterator[Outcome]:
        side_by_side = lanes_of(config.lanes, config.round_size, run.fleet.workers)
        pieces = deal([(ranks, threshold) for ranks in points], side_by_side)
        for results in prepared.each(pieces):
            for one in results:
                if isinstance(one, Replied):
                    judge = run.judges.get(config.judge, None)
                    one = one.judged(judge, of.prompts, config.max_missing)
                yield one

    return evaluate


def lanes_of(lanes: int | None, round_size: int, workers: int) -> int:
    """Trials to a piece: as many as were asked for, or 4, or fewer where some of the workers would
    have none.

    >>> [lanes_of(None, 4, workers) for workers in (1, 2, 4, 8)], lanes_of(3, 4, 2)
    ([4, 2, 1, 1], 3)
    """
    return lanes or max(1, min(LANES, round_size // workers))


def val_reply_work(
    run: Run, of: tuple[list[str], Mapping[str, Any] | None]
) -> Work[None, list[str]]:
    """The unchanged model's replies to harmless val prompts, as long as a trial's."""
    prompts, check = of
    run.use_check(check)
    return lambda items, _: [asking(run).replies(prompts) for _ in items]


def _drift_on(
    run: Run, prompts: list[str], check: Mapping[str, Any] | None
) -> tuple[list[str], list[str]]:
    """Harmless prompts, and what is said to them."""
    return prompts, run.fleet.prepared(val_reply_work, (prompts, check)).one(None)


def asking(run: Run) -> Asking:
    """How the run's model is asked while directions are ablated."""
    c = run.config
    opened = run.lm.opens_reasoning("Hello")
    short = c.test_tokens if opened else min(c.test_tokens, REFUSAL_TOKENS)
    return Asking.by(
        run.judges.get(c.judge, run.answer_check),
        run.lm,
        tokens=c.search_tokens or c.test_tokens,
        refusal_tokens=c.search_tokens or short,
        lanes=c.lanes or LANES,
        batch_size=c.batch_size,
        max_missing=c.max_missing,
    )


def _say_who_idles(run: Run) -> None:
    """Say where rounds are too small for all workers to have a trial."""
    size, workers = run.config.round_size, run.fleet.workers
    busy = -(-size // lanes_of(run.config.lanes, size, workers))
    if busy < workers:
        note(
            f"search: rounds of {size} trials, {lanes_of(run.config.lanes, size, workers)} side by "
            f"side, keep {busy} of {workers} workers busy: a new run with --round-size "
            f"{workers * LANES} gives each {LANES} at a time"
        )


def check_storage(run: Run) -> None:
    """Raise InputError where the storage named cannot be reached: before anything is loaded."""
    if run.config.storage is not None:
        open_storage(run.config.storage).remove_session()
