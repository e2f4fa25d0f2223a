"""Test a model under several conditions: replies, verdicts, drift, and the table of all of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from somatlas.ablation import Projection
from somatlas.arguments import check_kind, check_real, check_whole, described
from somatlas.completions.cache import ReplyStore
from somatlas.completions.completion import Completion
from somatlas.completions.make import Generator, asked, completions
from somatlas.errors import InputError
from somatlas.evaluation.conditions import Edit, as_projections
from somatlas.evaluation.effects import Effects, KeptDrift, effects
from somatlas.evaluation.evaluation import Evaluation, summarised
from somatlas.evaluation.table import evaluation_table
from somatlas.evaluation.verdicts import VerdictRow, judged
from somatlas.judges.keyword import is_refusal
from somatlas.judges.verdict import Judge, check_judge
from somatlas.measures.drift import MORE_REPLY_TOKENS
from somatlas.models.language_model import MODEL, LanguageModel
from somatlas.models.sampling import Sampling
from somatlas.progress import progress
from somatlas.prompts.prompt_set import PromptSplit, check_split

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class Result:
    """What a test gave: the replies and verdicts of every condition, and their evaluation."""

    lm: LanguageModel
    prompts: PromptSplit
    projections: Mapping[str, Projection | None]
    judges: Sequence[Judge]
    completions: Mapping[str, Sequence[Completion]]
    verdicts: Sequence[VerdictRow]
    effects: Effects
    evaluation: Evaluation
    tokens: int
    batch_size: int
    seed: int

    def table(self) -> str:
        """The rates of every condition with 95 % intervals, and the paired tests below."""
        return evaluation_table(self.evaluation)

    def to_frame(self) -> DataFrame:
        """A row a reply: see `reply_frame`."""
        return reply_frame(self.verdicts, self.completions)


def evaluate(
    lm: LanguageModel,
    conditions: Mapping[str, Edit],
    prompts: PromptSplit,
    judges: Sequence[Judge],
    *,
    tokens: int = 64,
    batch_size: int = 128,
    samples: int = 1,
    temperature: float = 0.0,
    top_p: float = 1.0,
    max_missing: float = 0.02,
    shows: Callable[[str], bool] = is_refusal,
    store: ReplyStore | None = None,
    seed: int = 0,
) -> Result:
    """Replies to a split's prompts of the model as it is and under every condition, judged.

    conditions : by name, a `Projection`, a set of directions, or an array of them (k, d). judges :
    the first one's verdicts make the table. tokens : of a reply at most (64, as refusals come
    late). samples, temperature, top_p : replies a prompt, greedy at temperature 0. max_missing :
    the share of replies a judge may leave without a verdict. shows : what marks a reply that shows
    the behaviour. store : where replies are kept, so that none is made twice. seed : of samples and
    of bootstraps.

    Raises InputError for a condition's name that is none or an edit of another model, no judge or
    two of one name, a split without harmful or harmless prompts, a number out of range, several
    greedy samples, or too many missing verdicts.
    """
    check_kind("lm", lm, LanguageModel, MODEL)
    check_split(prompts)
    projections = as_projections(conditions)
    judges = _checked(judges)
    if not judges:
        raise InputError("no judge is given: name one, as [KeywordJudge()]")
    for what, count in {"tokens": tokens, "batch_size": batch_size, "samples": samples}.items():
        check_whole(what, count, 1)
    check_whole("seed", seed, 0)
    check_real("temperature", temperature, least=0)
    check_real("top_p", top_p, above=0, most=1)
    check_real("max_missing", max_missing, least=0, most=1)
    check_kind("store", store, (ReplyStore, type(None)), "a ReplyStore or None")
    if not callable(shows):
        raise InputError(f"shows must be a function of a reply, not {described(shows)}")
    if samples > 1 and temperature == 0:
        raise InputError(f"samples = {samples} greedy replies would be equal: give a temperature")
    sampling = Sampling(temperature, top_p, seed) if temperature > 0 else None
    generator = Generator(lm, tokens, batch_size, sampling, store)
    wanted = asked(prompts, [lm.system], samples)
    replies: dict[str, list[Completion]] = {}
    with progress("replies", len(wanted) * len(projections)) as advance:
        for name, projection in projections.items():
            replies[name] = completions(wanted, generator.under(projection, advance))
    drift = KeptDrift.of(replies["base"], MORE_REPLY_TOKENS).on(lm, batch_size)
    found = effects(lm, projections, drift, prompts.harmful, batch_size=batch_size)
    rows = judged(lm, replies, judges, shows=shows, tokens=tokens, max_missing=max_missing)
    records = {judge.name: dict(judge.record) for judge in judges}
    evaluation = summarised(rows, found, records, model=lm.name, seed=seed)
    return Result(
        lm,
        prompts,
        projections,
        judges,
        replies,
        rows,
        found,
        evaluation,
        tokens,
        batch_size,
        seed,
    )


def _checked(judges: Any) -> list[Judge]:
    if isinstance(judges, str) or not isinstance(judges, Iterable):
        raise InputError(f"judges must be a list of judges, not {described(judges)}: give [judge]")
    found = list(judges)
    for judge in found:
        check_judge(judge)
    names = [judge.name for judge in found]
    if twice := {name for name in names if names.count(name) > 1}:
        raise InputError(
            f"two judges are called {min(twice)!r}, and their verdicts would be mixed up: ask "
            "them in two calls, or give one another name"
        )
    return found


def reply_frame(
    verdicts: Sequence[VerdictRow], replies: Mapping[str, Sequence[Completion]]
) -> DataFrame:
    """A pandas frame with a row a reply.

    Columns: prompt_id, condition, kind, category, prompt, system, sample, reply, reasoning, ended,
    verdict (the first judge's), verdict_NAME of every judge, repetition, shown_within.
    """
    import pandas as pd  # a second to import, which whoever needs no frame is spared

    every = [(name, one) for name, side in replies.items() for one in side]
    rows: list[dict[str, Any]] = []
    for row, (condition, one) in zip(verdicts, every, strict=True):
        assert (row.condition, row.prompt_id) == (condition, one.prompt_id)
        rows.append(
            {
                "prompt_id": row.prompt_id,
                "condition": condition,
                "kind": row.kind,
                "category": row.category,
                "prompt": row.prompt,
                "system": row.system,
                "sample": row.sample,
                "reply": one.reply,
                "reasoning": one.reasoning,
                "ended": row.ended,
                "verdict": row.verdict,
                **{f"verdict_{name}": said["verdict"] for name, said in row.judges.items()},
                "repetition": row.repetition,
                "shown_within": row.shown_within,
            }
        )
    return pd.DataFrame(rows)
