"""Search which directions to ablate together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import optuna

from somatlas.ablation import Projection
from somatlas.ablation.projection import Mode
from somatlas.arguments import check_choice, check_kind, check_real, check_whole
from somatlas.directions.direction_set import DirectionSet
from somatlas.errors import without_password
from somatlas.judges.verdict import Judge, check_judge
from somatlas.measures.drift import Drift
from somatlas.models.language_model import MODEL, LanguageModel
from somatlas.progress import progress
from somatlas.prompts import Prompt
from somatlas.prompts.prompt_set import PromptSplit, check_split, spread, texts
from somatlas.searches.loop import (
    Evaluate,
    Outcome,
    contenders,
    finished_trials,
    in_lanes,
    run_trials,
)
from somatlas.searches.result import SearchResult, front_rows, limit_row, trial_rows
from somatlas.searches.rounds import SIZE
from somatlas.searches.sampler import STARTUP, SubsetSampler
from somatlas.searches.samplers import make_proposer
from somatlas.searches.space import Ranks, SubsetSpace
from somatlas.searches.study import agree_on_directions, open_storage, open_study
from somatlas.searches.trials import Asking, Trials

Objective = Literal["asr", "asr,kl"]
_FEWEST_SELECTION = 8  # prompts; with fewer the contenders are not re-scored


@dataclass(frozen=True)
class SearchPrompts:
    """Of a split's harmful prompts, those that every trial answers (`seen`) and those that the
    winner is chosen on (`unseen`); and the harmless ones whose replies should not change."""

    seen: list[Prompt]
    unseen: list[Prompt]
    harmless: list[Prompt]

    @classmethod
    def of(cls, val: PromptSplit, count: int, selection: int) -> SearchPrompts:
        """`count` prompts a trial and `selection` others, evenly spread; none of these where there
        are fewer than 8."""
        seen = spread(val.harmful, count)
        taken = {prompt.id for prompt in seen}
        unseen = spread([p for p in val.harmful if p.id not in taken], selection)
        if len(unseen) < _FEWEST_SELECTION:
            unseen = []
        return cls(seen, unseen, spread(val.harmless, count))


def search(
    lm: LanguageModel,
    directions: DirectionSet,
    val: PromptSplit,
    judge: Judge,
    *,
    k: int = 3,
    trials: int = 16,
    candidates: int = 16,
    mode: Mode = "sequential",
    objective: Objective = "asr",
    max_kl: float | None = None,
    prompts: int = 32,
    selection_prompts: int = 32,
    startup: int = STARTUP,
    ordered: bool = False,
    sampler: str | None = None,
    tokens: int = 64,
    round_size: int = SIZE,
    lanes: int = 4,
    batch_size: int = 128,
    max_missing: float = 0.02,
    storage: str | None = None,
    name: str = "search",
    seed: int = 0,
) -> SearchResult:
    """The k of the first `candidates` directions whose ablation has most attack success on val.

    trials : sets to try (paper: 128 to 512), the first `startup` at random. prompts : harmful val
    prompts a trial answers (paper: 41). selection_prompts : others, that the winner is chosen on
    among the best four. objective : "asr,kl" seeks little drift too. max_kl : the winner's KL on
    harmless replies, nats a token, is at most this. ordered : search ordered tuples, as the paper.
    sampler : what proposes sets, by name (default: a Gaussian process, of tuples the paper's).
    round_size : trials proposed from the same outcomes. lanes : of these, how many side by side in
    one batch; it changes no result. storage : database URL that keeps the study under `name`,
    so that it goes on where it was; in memory if not given.

    Raises InputError where k is more than the candidates, a number is out of range, val lacks the
    prompts that are needed, the storage cannot be used or holds another search of that name, or too
    many verdicts are missing.

        found = search(lm, directions, prompts.val, judge, k=3, trials=8)
        found.ranks, found.projection
    """
    check_kind("lm", lm, LanguageModel, MODEL)
    check_kind("directions", directions, DirectionSet, "a DirectionSet, as a method's directions_")
    needs_drift = objective == "asr,kl" or max_kl is not None
    check_split(val, needs=("harmful", "harmless") if needs_drift else ("harmful",))
    check_judge(judge)
    check_choice("objective", objective, get_args(Objective))
    check_choice("mode", mode, get_args(Mode))
    counts = {"k": k, "trials": trials, "prompts": prompts, "startup": startup, "tokens": tokens}
    counts |= {"round_size": round_size, "lanes": lanes, "batch_size": batch_size}
    counts |= {"candidates": candidates}
    for what, count in counts.items():
        check_whole(what, count, 1)
    for what, count in {"selection_prompts": selection_prompts, "seed": seed}.items():
        check_whole(what, count, 0)
    check_real("max_missing", max_missing, least=0, most=1)
    if max_kl is not None:
        check_real("max_kl", max_kl, above=0)
    check_kind("name", name, str, "a text")
    check_kind("ordered", ordered, bool, "True or False")
    check_kind("storage", storage, (str, type(None)), "a database URL, as sqlite:///search.db")
    k, seed = int(k), int(seed)  # the record is plain JSON, and arrays' numbers are not
    space = SubsetSpace(min(candidates, len(directions)), k, ordered)
    Projection(directions.vectors[: space.candidates])  # refuses those that cannot be ablated
    vectors = directions.vectors[: space.candidates].numpy()
    asking = Asking.by(
        judge, lm, tokens=tokens, lanes=lanes, batch_size=batch_size, max_missing=max_missing
    )
    chosen = SearchPrompts.of(val, prompts, selection_prompts)
    drift = val_drift(asking, chosen.harmless) if needs_drift else None
    one = Trials(asking, directions.vectors, texts(chosen.seen), mode=mode, drift=drift)
    study = open_study(
        optuna.storages.InMemoryStorage() if storage is None else open_storage(storage),
        name,
        SubsetSampler(
            space, seed, vectors, startup, make_proposer(sampler, ordered=ordered), round_size
        ),
        study_directions(objective),
        {
            "k": k,
            "candidates": candidates,
            "mode": mode,
            "objective": objective,
            "prompts": [prompt.id for prompt in chosen.seen],
            "startup": startup,
            "ordered": ordered,
            "round_size": round_size,
            "sampler": sampler,
            "tokens": tokens,
            "seed": seed,
            "judge": judge.name,
            "coherence": judge.record.get("coherence") is not None,
            **_model_settings(lm),
        },
    )
    agree_on_directions(study, vectors)
    with progress("search", min(trials, space.size)) as advance:
        run_trials(study, space, in_lanes(one, lanes), trials, advance=advance)
    return found(
        one.projection,
        in_lanes(one.on(texts(chosen.unseen)), lanes),
        finished_trials(study, space),
        chosen,
        max_kl=max_kl,
        storage="memory" if storage is None else without_password(storage),
        coherence=judge.record.get("coherence"),
    )


def _model_settings(lm: LanguageModel) -> dict[str, Any]:
    """What of a model decides a trial's outcome, for a study that others go on with."""
    return {
        "model": lm.name,
        "dtype": str(lm.model.dtype).removeprefix("torch."),
        "system": lm.system,
        "thinking": lm.thinking,
        "site": lm.site,
        "edit_head": lm.edit_head,
    }


def study_directions(objective: Objective) -> list[Literal["minimize", "maximize"]]:
    """What Optuna is to do with each number of a trial."""
    return ["maximize", "minimize"] if objective == "asr,kl" else ["maximize"]


def val_drift(asking: Asking, harmless: Sequence[Prompt]) -> Drift:
    """Drift on the unchanged model's replies to harmless val prompts, as long as a trial's."""
    prompts = texts(harmless)
    return Drift(asking.lm, prompts, asking.replies(prompts), asking.batch_size)


def found(
    projection: Callable[[Ranks], Projection],
    evaluate: Evaluate,
    rows: Sequence[tuple[Ranks, Outcome]],
    prompts: SearchPrompts,
    *,
    max_kl: float | None,
    storage: str,
    coherence: Mapping[str, Any] | None,
) -> SearchResult:
    """The result of finished trials: the best of them are tried again on prompts that the search
    never saw. projection : of ranks. evaluate : on those prompts. storage, coherence : for the
    record."""
    best = contenders(rows, max_kl)
    selection = _selection(evaluate, best, len(prompts.unseen))
    winner, outcome = best[selection["chosen"]] if selection else best[0]
    result = SearchResult(
        ranks=list(winner),
        val={**asdict(outcome), "n": len(prompts.seen)},
        selection=selection,
        front=front_rows(rows),
        max_kl=limit_row(rows, max_kl),
        storage=storage,
        coherence=None if coherence is None else dict(coherence),
        trials=trial_rows(rows),
    )
    result._projection = projection(winner)
    return result


def _selection(
    evaluate: Evaluate, best: Sequence[tuple[Ranks, Outcome]], prompts: int
) -> dict[str, Any] | None:
    """The contenders' ASR on prompts that the search never saw, and which of them leads.

    `optimism` is what val ASR, the highest of many trials', promises too much: the mean over the
    contenders of val minus selection ASR. The winner's own gap would be one draw, and picked for a
    high selection ASR. `optimism_contenders` says over how many it is the mean.
    """
    if not prompts:
        return None
    with progress("selection", len(best)) as advance:
        asr = []
        for outcome in evaluate([ranks for ranks, _ in best], 0.0):
            asr.append(outcome.asr)
            advance(1)
    chosen = max(range(len(asr)), key=asr.__getitem__)  # of equals the better on val
    return {
        "chosen": chosen,
        "asr": asr[chosen],
        "optimism": sum(o.asr - own for (_, o), own in zip(best, asr, strict=True)) / len(best),
        "optimism_contenders": len(best),
        "n": prompts,
        "contenders": [
            {"ranks": list(ranks), "val_asr": outcome.asr, "selection_asr": value}
            for (ranks, outcome), value in zip(best, asr, strict=True)
        ],
    }
