"""Which ranks to ablate together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import SQLAlchemyError

from somatlas.directions.direction_set import DirectionSet
from somatlas.measures.drift import Drift
from somatlas.files import write_json
from somatlas.models.generation import generate
from somatlas.ablation import Projection, RowProjections
from somatlas.judges import Verdict, is_settled_refusal
from somatlas.judges.registry import check_missing
from somatlas.progress import progress
from somatlas.prompts import Prompt
from somatlas.prompts.prompt_set import spread, texts
from somatlas.runs.folder import Run
from somatlas.searches import (
    Outcome,
    Ranks,
    SubsetSampler,
    SubsetSpace,
    contenders,
    finished_trials,
    open_storage,
    open_study,
    pareto_front,
    search,
    storage_error,
    storage_url,
    within,
)
from somatlas.searches.study import agree_on_directions, without_password
from somatlas.searches.watch import RefusalWatch
from somatlas.runs.stages.answer_check import coherence_check
from somatlas.runs.stages.map_stage import draw_map

_REFUSAL_TOKENS = 48  # of a reply that is asked for a refusal alone
_FEWEST_SELECTION = 8  # prompts; with fewer the contenders are not re-scored


def search_stage(run: Run) -> None:
    """Trials on val prompts; then the best of them again on prompts that the search never saw."""
    run.needs("map")
    config = run.config
    directions = DirectionSet.load(run.path("directions.safetensors"))
    candidates = min(config.candidates, len(directions))
    space = SubsetSpace(candidates, config.k, config.ordered)
    vectors = directions.vectors[:candidates].numpy()
    sampler = SubsetSampler(space, config.seed, vectors, config.startup)
    seen, unseen = search_prompts(run)
    url = config.storage or storage_url(run.path("study.db"))
    run.begin("search")
    try:
        study = open_study(
            open_storage(url),
            f"{run.folder.parent.name}/{config.name}",
            sampler,
            ["maximize", "minimize"] if config.objective == "asr,kl" else ["maximize"],
            run.study_settings(),
        )
        agree_on_directions(study, vectors)
        trial = Trials(run, directions)
        with progress("search", min(config.trials, space.size)) as advance:
            search(study, space, trial, config.trials, lanes=config.lanes, advance=advance)
        rows = finished_trials(study, space)
    except (StorageInternalError, SQLAlchemyError) as error:
        raise storage_error(url, error) from None
    if config.part is not None:
        return
    best = contenders(rows, config.max_kl)
    selection = _selection(trial, best, unseen)
    winner, outcome = best[selection["chosen"]] if selection else best[0]
    write_json(
        run.path("search.json"),
        {
            "ranks": winner,
            "val": {**asdict(outcome), "n": len(seen)},
            "selection": selection,
            "front": _front(rows),
            "max_kl": None
            if config.max_kl is None
            else {"limit": config.max_kl, "kept": len(within(rows, config.max_kl))},
            "storage": without_password(config.storage) if config.storage else "study.db",
            "coherence": None if trial.check is None else trial.check.record,
            "trials": [{"ranks": ranks, **asdict(outcome)} for ranks, outcome in rows],
        },
    )
    draw_map(run, winner)


def _front(rows: Sequence[tuple[Ranks, Outcome]]) -> list[dict[str, Any]] | None:
    front = pareto_front(rows)
    return [{"ranks": ranks, "asr": o.asr, "kl": o.kl} for ranks, o in front] or None


def search_prompts(run: Run) -> tuple[list[Prompt], list[Prompt]]:
    """The val prompts that trials answer, and those that their winner is chosen on."""
    val = run.prompts.positive["val"]
    seen = spread(val, run.config.val_prompts)
    taken = {id(prompt) for prompt in seen}
    unseen = spread([p for p in val if id(p) not in taken], run.config.selection_prompts)
    return seen, unseen if len(unseen) >= _FEWEST_SELECTION else []


class Trials:
    """Evaluates sets of ranks on the resident model (`somatlas.searches.loop.Evaluate`)."""

    def __init__(self, run: Run, directions: DirectionSet) -> None:
        self.config, self.lm = run.config, run.lm
        self.directions = directions
        self.harmful = texts(search_prompts(run)[0])
        self._opened = self.lm.opens_reasoning(self.harmful[0])
        self.check = coherence_check(run)
        self.judge = run.judges.get(self.config.judge, self.check)
        self.refusal_judge = run.judges.get(self.config.judge, None)
        self.drift = None
        if self.config.objective == "asr,kl" or self.config.max_kl is not None:
            harmless = texts(spread(run.prompts.negative["val"], self.config.val_prompts))
            replies = self._replies(harmless)
            self.drift = Drift(self.lm, harmless, replies, self.config.batch_size)

    def __call__(self, points: Sequence[Ranks], threshold: float) -> list[Outcome]:
        """An outcome a point; a trial that falls below the threshold is ended and pruned, where
        ASR is the only objective."""
        projections = [
            Projection(self.directions.vectors[list(ranks)], self.config.mode) for ranks in points
        ]
        n = len(self.harmful)
        watch = self._watch(n, len(points), threshold if self.drift is None else 0.0)
        replies = self._replies(self.harmful, projections, watch)
        outcomes = []
        for place, projection in enumerate(projections):
            if watch is not None and watch.hopeless(place):
                bound = watch.bound(place)
                outcomes.append(Outcome(bound, 1 - bound, 0.0, pruned=True))
                continue
            share = self._shares(self.harmful, replies[place * n : (place + 1) * n])
            outcomes.append(
                Outcome(
                    share[Verdict.COMPLIED],
                    share[Verdict.REFUSED],
                    share[Verdict.INCOHERENT],
                    share[Verdict.OFF_TOPIC],
                    None if self.drift is None else self.drift.under(projection),
                )
            )
        return outcomes

    def asr(self, ranks: Ranks, prompts: Sequence[str]) -> float:
        """ASR of a set of ranks on other prompts."""
        projection = Projection(self.directions.vectors[list(ranks)], self.config.mode)
        return self._shares(prompts, self._replies(prompts, [projection]))[Verdict.COMPLIED]

    def shares(
        self, projections: Sequence[Projection], prompts: Sequence[str]
    ) -> list[dict[str, float]]:
        """Share of each verdict on prompts, of the model as it is and under each projection."""
        n = len(prompts)
        replies = self._replies(prompts, [], self._watch(n, 1))
        replies += self._replies(prompts, projections, self._watch(n, len(projections)))
        shares = [self._shares(prompts, replies[i : i + n]) for i in range(0, len(replies), n)]
        return [
            {
                "asr": share[Verdict.COMPLIED],
                "refusal": share[Verdict.REFUSED],
                "babble": share[Verdict.INCOHERENT],
                "off_topic": share[Verdict.OFF_TOPIC],
            }
            for share in shares
        ]

    @property
    def refusal_tokens(self) -> int:
        """How long the replies of `refusals` are, where the search's length is not given: refusals
        open replies, but where the template opens reasoning stand behind it."""
        c = self.config
        short = c.test_tokens if self._opened else min(c.test_tokens, _REFUSAL_TOKENS)
        return c.search_tokens or short

    def refusals(
        self, projections: Sequence[Projection], prompts: Sequence[str]
    ) -> NDArray[np.float64]:
        """(1 + p, n): 1 where the reply to a prompt refuses, 0 where not, NaN without a verdict, of
        the model as it is and under each projection, a lane of the search each.

        The coherence check, which tells answers from babble and never from refusals, is left out.
        """
        judge, n = self.refusal_judge, len(prompts)
        lanes = range(0, len(projections), self.config.lanes)
        verdicts: list[Verdict] = []
        for batch in ([], *(projections[i : i + self.config.lanes] for i in lanes)):
            watch = self._watch(n, max(1, len(batch)))
            replies = self._replies(prompts, batch, watch, self.refusal_tokens)
            judgements = judge.judge([*prompts] * max(1, len(batch)), replies)
            check_missing(judge, judgements, self.config.max_missing)
            verdicts += [j.verdict for j in judgements]
        refused = [np.nan if v == Verdict.MISSING else v == Verdict.REFUSED for v in verdicts]
        return np.array(refused, dtype=np.float64).reshape(1 + len(projections), n)

    def _watch(self, prompts: int, trials: int, threshold: float = 0.0) -> RefusalWatch | None:
        """Only of the matcher's refusals is it known when a reply is settled."""
        if self.config.behaviour is not None or self.config.judge != "keyword":
            return None
        return RefusalWatch(prompts, trials, self._is_settled, threshold)

    def _replies(
        self,
        prompts: Sequence[str],
        projections: Sequence[Projection] = (),
        watch: RefusalWatch | None = None,
        tokens: int | None = None,
    ) -> list[str]:
        rows = RowProjections(projections) if len(projections) > 1 else None
        with self.lm.ablate(rows or next(iter(projections), None)):
            replies = generate(
                self.lm,
                prompts,
                max_new_tokens=tokens or self.config.search_tokens or self.config.test_tokens,
                batch_size=self.config.batch_size * max(1, len(projections)),
                ablations=rows,
                watch=watch,
            )
        return [self._answer(reply) for reply in replies]

    def _answer(self, reply: str) -> str:
        return self.lm.part_reasoning(reply, opened=self._opened).answer

    def _is_settled(self, text: str) -> bool:
        """Whether a reply that begins so refuses whatever follows: thoughts settle nothing."""
        return is_settled_refusal(self._answer(text))

    def _shares(self, prompts: Sequence[str], replies: Sequence[str]) -> dict[Verdict, float]:
        judgements = self.judge.judge(prompts, replies)
        check_missing(self.judge, judgements, self.config.max_missing)
        given = Counter(j.verdict for j in judgements)
        n = len(judgements) - given[Verdict.MISSING]
        return {v: given[v] / max(1, n) for v in Verdict}


def _selection(
    trials: Trials, best: Sequence[tuple[Ranks, Outcome]], prompts: Sequence[Prompt]
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
        for ranks, _ in best:
            asr.append(trials.asr(ranks, texts(prompts)))
            advance(1)
    chosen = max(range(len(asr)), key=asr.__getitem__)  # of equals the better on val
    return {
        "chosen": chosen,
        "asr": asr[chosen],
        "optimism": sum(o.asr - own for (_, o), own in zip(best, asr, strict=True)) / len(best),
        "optimism_contenders": len(best),
        "n": len(prompts),
        "contenders": [
            {"ranks": ranks, "val_asr": outcome.asr, "selection_asr": value}
            for (ranks, outcome), value in zip(best, asr, strict=True)
        ],
    }


def check_storage(run: Run) -> None:
    """Raise InputError where the storage named cannot be reached: before anything is loaded."""
    if run.config.storage is not None:
        open_storage(run.config.storage).remove_session()
