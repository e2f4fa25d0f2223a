"""What a trial measures: replies under the ablation of a set of directions, judged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from somatlas.ablation import LayerProjections, Projection, RowProjections
from somatlas.ablation.projection import Mode
from somatlas.fleet import deal, flat
from somatlas.judges.registry import judgements_within
from somatlas.judges.verdict import Judge, Verdict, refusal_judge, settled_by
from somatlas.measures.drift import Drift, ranked
from somatlas.models.generation import generate
from somatlas.models.language_model import LanguageModel
from somatlas.searches.loop import Outcome
from somatlas.searches.space import Ranks
from somatlas.searches.watch import RefusalWatch

LANES = 4  # ablations side by side in one batch
# Of a reply that is asked for a refusal alone: of 467 refusals of the embedded models, as they are
# and under ten ablations, one is told from what follows 32 tokens, one in twenty after 20.
REFUSAL_TOKENS = 32
# Side by side where only refusals are asked for, whatever the lanes: of the embedded default on a
# CPU 256 rows decode 4 % faster, and their keys and values take half a gigabyte more.
_ROWS = 128

# Replies to prompts that are there already, by condition: 0 the model as it is, i + 1 projection i.
Known = Mapping[int, Sequence[str]]


@dataclass(frozen=True)
class Asking:
    """How a model is asked while directions are ablated, and who judges what it says.

    judge : of attack success. refusal_judge : of refusals alone, for which no check of answers is
    needed. settled : of a reply's beginning, whether it refuses whatever follows, so that it may
    end; None where that is not known of the judge. tokens : of a reply. refusal_tokens : of a
    reply that is asked for a refusal alone. lanes : ablations side by side in one batch, each of
    batch_size prompts. max_missing : share of replies that a judge may leave without a verdict.
    """

    lm: LanguageModel
    judge: Judge
    refusal_judge: Judge
    settled: Callable[[str], bool] | None = None
    tokens: int = 64
    refusal_tokens: int = REFUSAL_TOKENS
    lanes: int = LANES
    batch_size: int = 128
    max_missing: float = 0.02

    @classmethod
    def by(cls, judge: Judge, lm: LanguageModel, **how: Any) -> Self:
        """With a judge of attack success, which judges refusals alone too."""
        return cls(lm, judge, refusal_judge(judge), settled_by(judge), **how)

    def shares(
        self,
        projections: Sequence[Projection],
        prompts: Sequence[str],
        known: Known | None = None,
    ) -> list[dict[str, float]]:
        """Share of each verdict on prompts, of the model as it is and under each projection.

        known : replies of `tokens` at most that need not be made again.
        """
        replies = self._said(projections, prompts, self.tokens, len(projections), known or {})
        shares = [outcome_shares(self.judge, prompts, own, self.max_missing) for own in replies]
        return [
            dict(zip(("asr", "refusal", "babble", "off_topic"), share, strict=True))
            for share in shares
        ]

    def refusals(
        self,
        projections: Sequence[Projection],
        prompts: Sequence[str],
        known: Known | None = None,
    ) -> NDArray[np.float64]:
        """(1 + p, n): 1 where the reply to a prompt refuses, 0 where not, NaN without a verdict, of
        the model as it is and under each projection, side by side.

        known : replies that need not be made again; of longer ones their first `refusal_tokens`
        count, as of the others.
        """
        n, tokens = len(prompts), self.refusal_tokens
        cut = {
            row: self.lm.reply_texts([self.lm.text_ids(reply)[:tokens] for reply in replies])
            for row, replies in (known or {}).items()
        }
        verdicts: list[Verdict] = []
        said = self._said(projections, prompts, tokens, max(1, _ROWS // n), cut)
        for batch in (said[:1], *deal(said[1:], self.lanes)):
            asked = [*prompts] * len(batch)
            found = judgements_within(self.refusal_judge, asked, flat(batch), self.max_missing)
            verdicts += [j.verdict for j in found]
        refused = [np.nan if v == Verdict.MISSING else v == Verdict.REFUSED for v in verdicts]
        return np.array(refused, dtype=np.float64).reshape(1 + len(projections), n)

    def _said(
        self,
        projections: Sequence[Projection],
        prompts: Sequence[str],
        tokens: int,
        lanes: int,
        known: Known,
    ) -> list[list[str]]:
        """The replies to every prompt, of the model as it is and under each projection."""
        said, n = {row: list(replies) for row, replies in known.items()}, len(prompts)
        rows = [row for row in range(1 + len(projections)) if row not in said]
        as_it_is = [rows.pop(0)] if rows[:1] == [0] else []
        for batch in [*deal(as_it_is, 1), *deal(rows, max(1, lanes))]:
            own = [projections[row - 1] for row in batch if row]
            replies = self.replies(prompts, own, self.watch(n, len(batch)), tokens)
            said |= dict(zip(batch, deal(replies, n), strict=True))
        return [said[row] for row in range(1 + len(projections))]

    def replies(
        self,
        prompts: Sequence[str],
        projections: Sequence[Projection | LayerProjections] = (),
        watch: RefusalWatch | None = None,
        tokens: int | None = None,
        openings: Sequence[Sequence[int]] | None = None,
    ) -> list[str]:
        """The answers to every prompt, under one ablation after another, thoughts left out.

        openings : token ids that the reply to each prompt is made to begin with.
        """
        rows = RowProjections(projections) if len(projections) > 1 else None
        with self.lm.ablate(rows or next(iter(projections), None)):
            replies = generate(
                self.lm,
                prompts,
                max_new_tokens=tokens or self.tokens,
                batch_size=self.batch_size * max(1, len(projections)),
                ablations=rows,
                watch=watch,
                openings=openings,
            )
        return [self._answer(reply) for reply in replies]

    def answers(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """The same of replies that are there as token ids."""
        return [self._answer(text.strip()) for text in self.lm.reply_texts(rows)]

    def watch(self, prompts: int, trials: int, threshold: float = 0.0) -> RefusalWatch | None:
        """What ends replies that are settled, and trials below the threshold."""
        if self.settled is None:
            return None
        return RefusalWatch(prompts, trials, self._is_settled, threshold)

    def _is_settled(self, text: str) -> bool:
        """Thoughts settle nothing."""
        return self.settled is not None and self.settled(self._answer(text))

    def _answer(self, reply: str) -> str:
        return self.lm.part_reasoning(reply, opened=self._opened).answer

    @cached_property
    def _opened(self) -> bool:
        return self.lm.opens_reasoning("Hello")  # the template's own doing, whatever is asked


def outcome_shares(
    judge: Judge, prompts: Sequence[str], replies: Sequence[str], max_missing: float
) -> tuple[float, float, float, float]:
    """Shares of replies that comply, refuse, are incoherent, are off topic, among those with a
    verdict; raises InputError where too many have none."""
    found = judgements_within(judge, prompts, replies, max_missing)
    given = Counter(j.verdict for j in found)
    n = max(1, len(found) - given[Verdict.MISSING])
    return (
        given[Verdict.COMPLIED] / n,
        given[Verdict.REFUSED] / n,
        given[Verdict.INCOHERENT] / n,
        given[Verdict.OFF_TOPIC] / n,
    )


@dataclass(frozen=True)
class Replied:
    """What the model said in one trial, not judged yet.

    bound : the ASR that it could still have reached where it was ended early, else None. kl : on
    harmless replies, where it is measured.
    """

    replies: list[str]
    bound: float | None = None
    kl: float | None = None

    def judged(self, judge: Judge, prompts: Sequence[str], max_missing: float) -> Outcome:
        """The trial's outcome; one that was ended early needs no judge."""
        if self.bound is not None:
            return Outcome(self.bound, 1 - self.bound, 0.0, pruned=True)
        return Outcome(*outcome_shares(judge, prompts, self.replies, max_missing), self.kl)


class Trials:
    """Evaluates sets of ranks on the resident model (`somatlas.searches.loop.Evaluate`).

    vectors : (r, d) directions in rank order. harmful : the prompts that every trial answers.
    drift : on harmless replies, where KL is an objective or a limit; no trial is ended early then.
    """

    def __init__(
        self,
        asking: Asking,
        vectors: Tensor,
        harmful: Sequence[str],
        *,
        mode: Mode = "sequential",
        drift: Drift | None = None,
    ) -> None:
        self.asking, self.vectors, self.mode = asking, vectors, mode
        self.harmful, self.drift = list(harmful), drift

    def __call__(self, points: Sequence[Ranks], threshold: float) -> list[Outcome]:
        """An outcome a point, as they are evaluated side by side; a trial that falls below the
        threshold is ended and pruned, where ASR is the only objective."""
        how = self.asking
        return [
            one.judged(how.judge, self.harmful, how.max_missing)
            for one in self.replied(points, threshold)
        ]

    def replied(self, points: Sequence[Ranks], threshold: float) -> list[Replied]:
        """The same before anything is judged."""
        projections = [self.projection(ranks) for ranks in points]
        n = len(self.harmful)
        watch = self.asking.watch(n, len(points), threshold if self.drift is None else 0.0)
        replies = self.asking.replies(self.harmful, projections, watch)
        found = []
        for place, projection in enumerate(projections):
            own = replies[place * n : (place + 1) * n]
            if watch is not None and watch.hopeless(place):
                found.append(Replied(own, bound=watch.bound(place)))
            else:
                kl = None if self.drift is None else ranked(self.drift.under(projection))
                found.append(Replied(own, kl=kl))
        return found

    def projection(self, ranks: Sequence[int]) -> Projection:
        """The ablation of a set of ranks."""
        return Projection(self.vectors[list(ranks)], self.mode)

    def on(self, prompts: Sequence[str]) -> Trials:
        """The same on other prompts, without drift."""
        return Trials(self.asking, self.vectors, prompts, mode=self.mode)
