"""Chosen attempts on the test prompts: replies, every judge's verdicts, drift."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from somatlas.attacks.attack import Attempt
from somatlas.attacks.measuring import replies
from somatlas.audits.bench import Baseline, Bench, Held, Means
from somatlas.audits.kept_attempts import Kept, Known, Place, Tested
from somatlas.files import append_rows
from somatlas.fleet import Fleet, Work, deal
from somatlas.judges.registry import Judges, is_asked_by_driver, judgements_within
from somatlas.judges.repetition import repetition
from somatlas.judges.verdict import Judge
from somatlas.progress import Advance, progress
from somatlas.prompts.prompt_set import Prompt, texts
from somatlas.searches.trials import LANES

HARMFUL, ALL_KINDS = ("harmful",), ("harmful", "harmless", "borderline")
Verdicts = dict[str, list[str]]  # kind of prompts -> a verdict a prompt


@dataclass(frozen=True)
class Chosen:
    """An attempt that is to be tested. kinds : of prompts that it answers; drift is measured on the
    same harmless replies always. known : of its attack's attempts up to it."""

    place: Place
    kinds: tuple[str, ...]
    known: tuple[Known, ...]


@dataclass(frozen=True)
class Shown:
    """What it did. answers : kind -> one a prompt. verdicts : of each judge that is asked where the
    model is, by the name that the plan has it under. The others as in `Tested`."""

    answers: Mapping[str, list[str]]
    verdicts: Mapping[str, Verdicts]
    kl: list[float]
    length: list[float]
    repetition: list[float]


def proof_work(held: Held, baselines: Mapping[str, Baseline]) -> Work[Chosen, Shown]:
    """Attempts on one model tested side by side, on the same kinds of prompts."""

    def work(chosen: Sequence[Chosen], _advance: Advance) -> list[Shown]:
        bench = held.bench(chosen[0].place.role, baselines)
        attempts = [bench.made(one.place, one.known) for one in chosen]
        sides = {kind: _answers(bench, attempts, kind) for kind in chosen[0].kinds}
        return [
            _shown(bench, attempt, {kind: side[lane] for kind, side in sides.items()})
            for lane, attempt in enumerate(attempts)
        ]

    return work


def prove(
    fleet: Fleet[Held],
    means: Means,
    kept: Kept,
    baselines: Mapping[str, Baseline],
    chosen: Sequence[tuple[Sequence[Place], tuple[str, ...]]],
    judges: Judges,
    names: Mapping[str, str],
) -> None:
    """Test what was chosen of each model, and keep what was found.

    chosen : places of one model, and the kinds of prompts that they answer. judges : those that the
    driver asks. names : of judges, by those that the plan has them under.
    """
    kept.drop_untested()
    pieces = []
    for places, kinds in chosen:
        todo = [place for place in places if not _is_tested(kept, place, kinds)]
        asked = [Chosen(place, kinds, kept.known(place)) for place in todo]
        pieces += deal(asked, means.lanes or LANES)
    prepared = fleet.prepared(proof_work, baselines)
    with progress("test", sum(map(len, pieces))) as advance:
        for piece, results in zip(pieces, prepared.each(pieces), strict=True):
            for one, shown in zip(piece, results, strict=True):
                tested = _tested(means, shown, judges, names)
                if kept.replies is not None:
                    append_rows(kept.replies, _reply_rows(means, one.place, shown.answers))
                kept.tested.put({str(one.place): tested})
            advance(len(piece))


def _is_tested(kept: Kept, place: Place, kinds: Sequence[str]) -> bool:
    found = kept.tested.get(str(place))
    return found is not None and found.has(kinds)


def _answers(bench: Bench, attempts: Sequence[Attempt], kind: str) -> list[list[str]]:
    """Replies to harmless prompts are whole, for they are measured; others end when settled."""
    prompts = _prompts(bench.means, kind)
    if not prompts:
        return [[] for _ in attempts]
    return replies(bench.asking, attempts, texts(prompts), settled=kind != "harmless")


def _shown(bench: Bench, attempt: Attempt, own: Mapping[str, list[str]]) -> Shown:
    verdicts = {
        spec: _verdicts(bench.means, judge, own)
        for spec, judge in bench.judges.items()
        if not is_asked_by_driver(spec)
    }
    ids = [bench.lm.text_ids(reply) for reply in own.get("harmless", ())]
    with attempt.applied(bench.lm):
        kl = bench.on_test.by_reply(None)
    return Shown(own, verdicts, kl, [float(len(row)) for row in ids], [repetition(r) for r in ids])


def _verdicts(means: Means, judge: Judge, own: Mapping[str, Sequence[str]]) -> Verdicts:
    return {
        kind: verdicts_on(judge, texts(_prompts(means, kind)), said, means.max_missing)
        for kind, said in own.items()
    }


def verdicts_on(
    judge: Judge, prompts: Sequence[str], replies: Sequence[str], max_missing: float
) -> list[str]:
    """As they are kept; raises InputError where the judge left too many replies without one."""
    return [one.verdict.value for one in judgements_within(judge, prompts, replies, max_missing)]


def _tested(means: Means, shown: Shown, judges: Judges, names: Mapping[str, str]) -> Tested:
    """With the verdicts of the judges that only the driver asks."""
    verdicts = {
        names[spec]: _verdicts(means, judges.get(spec, None), shown.answers)
        if is_asked_by_driver(spec)
        else shown.verdicts[spec]
        for spec in means.judges
    }
    return Tested(verdicts, shown.kl, shown.length, shown.repetition)


def _reply_rows(
    means: Means, place: Place, own: Mapping[str, Sequence[str]]
) -> list[dict[str, str]]:
    return [
        {"attempt": str(place), "kind": kind, "prompt": prompt.text, "reply": reply}
        for kind, said in own.items()
        for prompt, reply in zip(_prompts(means, kind), said, strict=True)
    ]


def _prompts(means: Means, kind: str) -> Sequence[Prompt]:
    prompts: Sequence[Prompt] = getattr(means.parts.test, kind)
    return prompts
