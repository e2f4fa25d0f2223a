"""One model on the bench: how it is asked, who judges it, what it did before it was attacked."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path

from somatlas.attacks.target import Target
from somatlas.audits.audit_plan import Plan
from somatlas.audits.parts import Parts
from somatlas.completions.cache import ReplyStore
from somatlas.completions.make import Generator
from somatlas.judges import CoherenceCheck
from somatlas.judges.registry import Judges
from somatlas.judges.verdict import Judge
from somatlas.measures.drift import MORE_REPLY_TOKENS, Drift
from somatlas.measures.layer_choice import rule_prompts, sought_tokens
from somatlas.measures.layer_rule import first_token_log_probabilities
from somatlas.models.language_model import LanguageModel
from somatlas.prompts.prompt_set import Prompt, PromptSet, spread, texts
from somatlas.runs.answer_check import calibration_prompts, strangers_of
from somatlas.searches.trials import Asking

_DRIFT_PROMPTS = 32  # whose replies' log p over the vocabulary are held
_RULE_PROMPTS = 32  # of a side of val that refusal tokens are sought on, as in a run


@dataclass(frozen=True)
class Means:
    """What is the same for every model of an audit.

    prompts : the whole set. judges : makes judges by name. folder : of the audit's files. store :
    of replies that no attack changes.
    """

    plan: Plan
    prompts: PromptSet
    parts: Parts
    judges: Judges
    folder: Path
    store: ReplyStore
    batch_size: int = 128
    lanes: int = 4
    max_missing: float = 0.02
    refusal_tokens: Sequence[int] | None = None


@dataclass
class Bench:
    """A model with all that measuring it needs.

    role : "model" or "against". asking : with the deciding judge. judges : all, that one first.
    on_val, on_test : drift on harmless replies, over 32 tokens: fewer hide late damage.
    """

    role: str
    lm: LanguageModel
    means: Means
    other: LanguageModel | None
    asking: Asking
    judges: list[Judge]
    on_val: Drift
    on_test: Drift
    refusal_tokens: list[int]
    _targets: dict[int, Target] = field(default_factory=dict)

    def target(self, seed: int) -> Target:
        """The model as attacks see it, under one of the audit's seeds."""
        if seed not in self._targets:
            parts, plan = self.means.parts, self.means.plan
            self._targets[seed] = Target(
                self.lm,
                parts.train,
                parts.val,
                self.refusal_tokens,
                seed=seed,
                batch_size=self.means.batch_size,
                other=self.other,
                folder=self.means.folder / "work" / self.role / str(seed),
                screen_prompts=plan.screen_prompts,
                asking=self.asking,
            )
        return self._targets[seed]


def make_bench(
    role: str, lm: LanguageModel, means: Means, other: LanguageModel | None = None
) -> Bench:
    """Calibrate the check of answers, find the refusal tokens, and keep what the model says as it
    is.

    Raises InputError where it does not seem to refuse, or a judge cannot be made.
    """
    plan = means.plan
    check = _check(lm, means)
    judges = [means.judges.get(spec, check) for spec in (plan.judge, *plan.more_judges)]
    asking = Asking.by(
        judges[0],
        lm,
        tokens=plan.tokens,
        lanes=means.lanes,
        batch_size=means.batch_size,
        max_missing=means.max_missing,
    )
    val, test = (_drift(lm, p.harmless, means) for p in (means.parts.val, means.parts.test))
    tokens = means.refusal_tokens or _refusal_tokens(lm, means)
    return Bench(role, lm, means, other, asking, judges, val, test, list(tokens))


def between(first: Bench, second: Bench) -> float | None:
    """KL(second || first) of the unattacked models on the second's harmless test replies, nats a
    token; None where their vocabularies differ, so that it means nothing."""
    if first.lm.tokenizer.get_vocab() != second.lm.tokenizer.get_vocab():
        return None
    drift = copy(second.on_test)
    drift.lm = first.lm
    return drift.under(None)


def _check(lm: LanguageModel, means: Means) -> CoherenceCheck:
    """The check of answers, calibrated as a run's."""
    asked = calibration_prompts(means.prompts)
    answers = _answers(lm, asked, means.plan.tokens, means)
    return CoherenceCheck.calibrated(lm, asked, answers, strangers_of(means.prompts))


def _drift(lm: LanguageModel, harmless: Sequence[Prompt], means: Means) -> Drift:
    prompts = texts(spread(harmless, _DRIFT_PROMPTS))
    replies = _answers(lm, prompts, MORE_REPLY_TOKENS, means)
    return Drift(lm, prompts, replies, means.batch_size, MORE_REPLY_TOKENS)


def _answers(lm: LanguageModel, prompts: list[str], tokens: int, means: Means) -> list[str]:
    """What the model answers as it is, kept for all that ask it again."""
    generator = Generator(lm, tokens, means.batch_size, store=means.store)
    return [one.answer for one in generator.under(None)(prompts, lm.system)]


def _refusal_tokens(lm: LanguageModel, means: Means) -> list[int]:
    parts = means.parts
    _, opening = rule_prompts(parts.val, parts.train, _RULE_PROMPTS, find_tokens=True)
    harmful, harmless = (
        first_token_log_probabilities(lm, texts(side), means.batch_size) for side in opening
    )
    return sought_tokens(lm, opening[0], harmful, harmless)
