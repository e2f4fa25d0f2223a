"""One model on the bench: how it is asked, who judges it, what it did before it was attacked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from somatlas.attacks.attack import Attempt
from somatlas.attacks.attack_registry import make_attack
from somatlas.attacks.target import Target
from somatlas.audits.audit_plan import Plan
from somatlas.audits.kept_attempts import NONE, Known, Place
from somatlas.audits.parts import Parts
from somatlas.audits.trail import End, Later, Trail
from somatlas.judges.coherence import check_from_record
from somatlas.judges.registry import Judges, is_asked_by_driver
from somatlas.judges.verdict import Judge, Judgement
from somatlas.measures.drift import MORE_REPLY_TOKENS, Drift
from somatlas.models.language_model import LanguageModel
from somatlas.prompts.prompt_set import Prompt, PromptSet, spread, texts
from somatlas.searches.trials import LANES, Asking

UNCHANGED = Attempt(NONE, NONE, 0, {})
_DRIFT_PROMPTS = 32  # whose replies' log p over the vocabulary are held


@dataclass(frozen=True)
class Means:
    """What is the same for every model of an audit, as plain values.

    prompts : the whole set. folder : of the audit's files. lanes : attempts side by side; None for
    4, or fewer where some of several workers would have none.
    """

    plan: Plan
    prompts: PromptSet
    parts: Parts
    folder: Path
    batch_size: int = 128
    lanes: int | None = None
    max_missing: float = 0.02
    refusal_tokens: Sequence[int] | None = None

    @property
    def judges(self) -> list[str]:
        """By name, the deciding one first."""
        return [self.plan.judge, *self.plan.more_judges]


@dataclass(frozen=True)
class Baseline:
    """What a model does before it is attacked, as plain values.

    check : the record of its check of answers. on_val, on_test : its replies to the harmless
    prompts that drift is measured on. refusal_tokens : ids, and refusal_words : their text.
    """

    check: Mapping[str, Any]
    on_val: list[str]
    on_test: list[str]
    refusal_tokens: list[int]
    refusal_words: list[str]


@dataclass
class Bench:
    """A model with all that measuring it needs.

    role : "model" or "against". asking : with the deciding judge. judges : those that are asked
    here, by the names that the plan has them under. on_val, on_test : drift on harmless replies,
    over 32 tokens: fewer hide late damage. folder : keeps what attacks made at a price.
    """

    role: str
    lm: LanguageModel
    means: Means
    other: LanguageModel | None
    asking: Asking
    judges: Mapping[str, Judge]
    on_val: Drift
    on_test: Drift
    refusal_tokens: list[int]
    folder: Path | None
    _targets: dict[int, Target] = field(default_factory=dict)
    _trails: dict[str, Trail] = field(default_factory=dict)

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
                folder=None if self.folder is None else self.folder / self.role / str(seed),
                screen_prompts=plan.screen_prompts,
                asking=self.asking,
                drift=self.on_val,
            )
        return self._targets[seed]

    def attempt(self, place: Place, known: Sequence[Known]) -> Attempt | End | Later:
        """The attempt of a place, as `Trail.attempt` makes it."""
        if place.attack == NONE:
            return UNCHANGED
        if place.family not in self._trails:
            plan = self.means.plan
            attack = make_attack(place.attack, plan.attack_settings.get(place.attack))
            rounds = attack.attempts(self.target(place.seed), plan.trials(place.attack))
            self._trails[place.family] = Trail(place.attack, rounds)
        return self._trails[place.family].attempt(place.number, known)

    def made(self, place: Place, known: Sequence[Known]) -> Attempt:
        """The attempt of a place that has been tried."""
        attempt = self.attempt(place, known)
        assert isinstance(attempt, Attempt)
        return attempt


@dataclass
class Held:
    """What carries out an audit's work: the models by role, and a bench for each.

    judges : makes judges by name. folder : keeps what attacks made at a price, for others beside
    and for whoever goes on after an interruption. is_driver : whether it may ask judges that a
    server answers; a worker leaves these to the driver. weights : a word that is the same on all
    workers that hold the same.
    """

    models: Mapping[str, LanguageModel]
    means: Means
    judges: Judges
    folder: Path | None
    is_driver: bool = True
    weights: str | None = None
    _benches: dict[str, Bench] = field(default_factory=dict)

    def bench(self, role: str, baselines: Mapping[str, Baseline]) -> Bench:
        """The model in a role, with what it did before it was attacked.

        Raises InputError where a judge cannot be made.
        """
        if role not in self._benches:
            self._benches[role] = self._made(role, baselines[role])
        return self._benches[role]

    def _made(self, role: str, base: Baseline) -> Bench:
        lm, means = self.models[role], self.means
        check = check_from_record(lm, base.check)
        judges = {
            spec: self.judges.get(spec, check)
            for spec in means.judges
            if self.is_driver or not is_asked_by_driver(spec)
        }
        asking = Asking.by(
            judges.get(means.plan.judge, AskedElsewhere(means.plan.judge)),
            lm,
            tokens=means.plan.tokens,
            lanes=means.lanes or LANES,
            batch_size=means.batch_size,
            max_missing=means.max_missing,
        )
        val, test = (
            Drift(lm, drift_prompts(side.harmless), replies, means.batch_size, MORE_REPLY_TOKENS)
            for side, replies in ((means.parts.val, base.on_val), (means.parts.test, base.on_test))
        )
        other = self.models.get("against") if role == "model" else None
        return Bench(
            role, lm, means, other, asking, judges, val, test, base.refusal_tokens, self.folder
        )


@dataclass(frozen=True)
class AskedElsewhere:
    """Stands for a judge that the driver alone asks."""

    name: str

    @property
    def record(self) -> dict[str, Any]:
        return {}

    def judge(self, prompts: Sequence[str], replies: Sequence[str]) -> list[Judgement]:
        raise RuntimeError(f"judge {self.name} is asked by the driver alone, and not by a worker")


def drift_prompts(harmless: Sequence[Prompt]) -> list[str]:
    """Those that drift is measured on."""
    return texts(spread(harmless, _DRIFT_PROMPTS))


def between(first: Bench, second: Bench) -> float | None:
    """KL(second || first) of the unattacked models on the second's harmless test replies, nats a
    token; None where their vocabularies differ, so that it means nothing."""
    if first.lm.tokenizer.get_vocab() != second.lm.tokenizer.get_vocab():
        return None
    drift = copy(second.on_test)
    drift.lm = first.lm
    return drift.under(None)
