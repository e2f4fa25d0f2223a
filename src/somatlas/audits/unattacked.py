"""What the models of an audit are, and what they do before they are attacked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from somatlas.audits.bench import Baseline, Held, Means, drift_prompts
from somatlas.audits.kept_attempts import Identity
from somatlas.audits.reasoning_columns import silence_of
from somatlas.completions.cache import ReplyStore, model_key
from somatlas.completions.make import Generator, parted
from somatlas.fleet import Fleet, Work, deal, flat
from somatlas.judges import CoherenceCheck
from somatlas.measures.drift import MORE_REPLY_TOKENS
from somatlas.measures.layer_choice import rule_prompts, sought_tokens, valid_tokens
from somatlas.measures.layer_rule import first_token_log_probabilities
from somatlas.models.digest import weights_digest
from somatlas.models.language_model import LanguageModel
from somatlas.models.reply import Reply
from somatlas.progress import Advance
from somatlas.prompts.prompt_set import texts
from somatlas.runs.answer_check import calibration_prompts, strangers_of

_RULE_PROMPTS = 32  # of a side of val that refusal tokens are sought on, as in a run
Use = Literal["calibration", "val", "test"]
_USES: tuple[Use, ...] = ("calibration", "val", "test")


@dataclass(frozen=True)
class Introduced:
    """What a model is. asked : a digest of how it is asked: template, system prompt, place of
    ablation. notes : what is odd about it. silence : why it does not reason before it answers,
    empty where it does."""

    name: str
    weights: str
    asked: str
    dtype: str
    notes: list[str]
    silence: str

    @property
    def identity(self) -> Identity:
        """What must be the same for an audit to go on."""
        return Identity(self.name, self.weights, self.asked)


@dataclass(frozen=True)
class _Wanted:
    """Answers to the prompts of a use, of the model in a role."""

    role: str
    use: Use


def introduced(fleet: Fleet[Held], roles: Sequence[str]) -> dict[str, Introduced]:
    """The models by role."""
    found = fleet.prepared(introduction_work, None).each(deal(roles, 1))
    return dict(zip(roles, flat(found), strict=True))


def introduction_work(held: Held, _shared: None) -> Work[str, Introduced]:
    """What the model in a role is."""

    def introduce(role: str) -> Introduced:
        lm = held.models[role]
        asked = model_key(lm, None, texts(held.means.parts.test.harmful))
        return Introduced(
            lm.name,
            weights_digest(lm.model),
            hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest(),
            str(lm.model.dtype).removeprefix("torch."),
            list(lm.notes),
            silence_of(lm),
        )

    return lambda roles, _advance: [introduce(role) for role in roles]


def baselines(fleet: Fleet[Held], roles: Sequence[str], store: ReplyStore) -> dict[str, Baseline]:
    """What each model does as it is. store : keeps its replies for all that ask it again.

    Raises InputError where it does not seem to refuse.
    """
    wanted = [_Wanted(role, use) for role in roles for use in _USES]
    keyed = flat(fleet.prepared(key_work, None).each(deal(wanted, 1)))
    known = [store.find(key, prompts) for key, prompts in keyed]
    pieces = deal(list(zip(wanted, known, strict=True)), 1)
    answers: dict[_Wanted, list[str]] = {}
    made = fleet.prepared(answer_work, None).each(pieces)
    for one, was, (key, prompts), [(replies, own)] in zip(wanted, known, keyed, made, strict=True):
        if was is None:
            store.put(key, prompts, replies)
        answers[one] = own
    told = [(role, answers[_Wanted(role, "calibration")]) for role in roles]
    settled = flat(fleet.prepared(settling_work, None).each(deal(told, 1)))
    return {
        role: Baseline(
            check, answers[_Wanted(role, "val")], answers[_Wanted(role, "test")], tokens, words
        )
        for role, (check, tokens, words) in zip(roles, settled, strict=True)
    }


def key_work(held: Held, _shared: None) -> Work[_Wanted, tuple[dict[str, Any], list[str]]]:
    """What decides the replies, as `ReplyStore` is told, and the prompts."""

    def work(items: Sequence[_Wanted], _: Advance) -> list[tuple[dict[str, Any], list[str]]]:
        found = []
        for one in items:
            generator, prompts = _generator(held, one), _prompts(held.means, one.use)
            found.append((generator.key(generator.lm, None, prompts), prompts))
        return found

    return work


def answer_work(
    held: Held, _shared: None
) -> Work[tuple[_Wanted, list[Reply] | None], tuple[list[Reply], list[str]]]:
    """Replies and their answers, thoughts left out; of replies that are kept the answers alone."""

    def answer(one: _Wanted, kept: list[Reply] | None) -> tuple[list[Reply], list[str]]:
        generator, prompts = _generator(held, one), _prompts(held.means, one.use)
        replies = generator.make(generator.lm, None, prompts) if kept is None else kept
        return replies, [said.answer for said in parted(generator.lm, prompts[0], replies)]

    return lambda items, _advance: [answer(*item) for item in items]


def settling_work(
    held: Held, _shared: None
) -> Work[tuple[str, list[str]], tuple[Mapping[str, Any], list[int], list[str]]]:
    """The record of the check of answers that a model's answers calibrate, as a run's; and the
    tokens that open its refusals."""

    def settle(role: str, answers: list[str]) -> tuple[Mapping[str, Any], list[int], list[str]]:
        lm, means = held.models[role], held.means
        asked = _prompts(means, "calibration")
        check = CoherenceCheck.calibrated(lm, asked, answers, strangers_of(means.prompts))
        given = means.refusal_tokens
        tokens = valid_tokens(given, lm.limits.vocabulary) if given else _refusal_tokens(lm, means)
        return check.record, tokens, [str(lm.tokenizer.decode([token])) for token in tokens]

    return lambda items, _advance: [settle(*item) for item in items]


def _generator(held: Held, one: _Wanted) -> Generator:
    means = held.means
    tokens = means.plan.tokens if one.use == "calibration" else MORE_REPLY_TOKENS
    return Generator(held.models[one.role], tokens, means.batch_size)


def _prompts(means: Means, use: Use) -> list[str]:
    if use == "calibration":
        return calibration_prompts(means.prompts)
    return drift_prompts(getattr(means.parts, use).harmless)


def _refusal_tokens(lm: LanguageModel, means: Means) -> list[int]:
    parts = means.parts
    _, opening = rule_prompts(parts.val, parts.train, _RULE_PROMPTS, find_tokens=True)
    harmful, harmless = (
        first_token_log_probabilities(lm, texts(side), means.batch_size) for side in opening
    )
    return sought_tokens(lm, opening[0], harmful, harmless)
