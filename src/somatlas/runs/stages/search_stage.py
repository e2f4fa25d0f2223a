"""Which ranks to ablate together."""

from __future__ import annotations

from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import SQLAlchemyError

from somatlas.progress import progress
from somatlas.prompts.prompt_set import texts
from somatlas.runs.contents import Contents
from somatlas.runs.folder import Run
from somatlas.searches import (
    SubsetSampler,
    SubsetSpace,
    finished_trials,
    open_storage,
    open_study,
    run_trials,
    storage_error,
    storage_url,
)
from somatlas.searches.samplers import make_proposer
from somatlas.searches.search import SearchPrompts, found, study_directions, val_drift
from somatlas.searches.study import agree_on_directions, without_password
from somatlas.searches.trials import REFUSAL_TOKENS, Asking, Trials


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
        how = asking(run)
        limited = config.objective == "asr,kl" or config.max_kl is not None
        drift = val_drift(how, prompts.harmless) if limited else None
        seen = texts(prompts.seen)
        trials = Trials(how, directions.vectors, seen, mode=config.mode, drift=drift)
        with progress("search", min(config.trials, space.size)) as advance:
            run_trials(study, space, trials, config.trials, lanes=config.lanes, advance=advance)
        rows = finished_trials(study, space)
    except (StorageInternalError, SQLAlchemyError) as error:
        raise storage_error(url, error) from None
    if config.part is not None:
        return
    result = found(
        trials,
        rows,
        prompts,
        max_kl=config.max_kl,
        storage=without_password(config.storage) if config.storage else "study.db",
        coherence=how.judge.record.get("coherence"),
    )
    result.write(run.folder)


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
        lanes=c.lanes,
        batch_size=c.batch_size,
        max_missing=c.max_missing,
    )


def check_storage(run: Run) -> None:
    """Raise InputError where the storage named cannot be reached: before anything is loaded."""
    if run.config.storage is not None:
        open_storage(run.config.storage).remove_session()
