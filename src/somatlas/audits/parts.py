"""Which prompts the attacker has, which he searches on, and which measure him.

Of train a third is the attacker's. The other two are for whoever hardens the model, so that a
defence is never measured on directions made of the very prompts it was trained on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from somatlas.audits.audit_plan import Plan
from somatlas.errors import InputError
from somatlas.prompts.prompt_set import Prompt, PromptSet, PromptSplit, spread

SHARE = 1 / 3
_FEWEST = 8  # prompts of a side, below which no direction and no rate means anything


@dataclass(frozen=True)
class Parts:
    """train : the attacker's. val : what trials answer, and harmless ones. test : nobody's."""

    train: PromptSplit
    val: PromptSplit
    test: PromptSplit

    def digests(self) -> dict[str, str]:
        """The sha256 of every part's texts, in their order."""
        sides = {
            f"{name}_{side}": getattr(split, side)
            for name, split in (("train", self.train), ("val", self.val), ("test", self.test))
            for side in ("harmful", "harmless", "borderline")
        }
        return {name: _digest(prompts) for name, prompts in sides.items() if prompts}


def parts_of(prompts: PromptSet, plan: Plan, seed: int) -> Parts:
    """The parts that a plan takes of a prompt set. seed : decides which third is the attacker's.

    Raises InputError where a part has fewer than 8 harmful or harmless prompts.
    """
    train = attackers_part(prompts.train, seed)
    found = Parts(
        PromptSplit(
            *(spread(side, plan.train_prompts) for side in (train.harmful, train.harmless))
        ),
        PromptSplit(
            spread(prompts.val.harmful, plan.val_prompts),
            spread(prompts.val.harmless, plan.val_harmless),
        ),
        PromptSplit(
            spread(prompts.test.harmful, plan.test_harmful),
            spread(prompts.test.harmless, plan.test_harmless),
            spread(prompts.test.borderline, plan.test_borderline),
        ),
    )
    for name, split in (("train", found.train), ("val", found.val), ("test", found.test)):
        for side in ("harmful", "harmless"):
            if (count := len(getattr(split, side))) < _FEWEST:
                what = "the attacker's third of train" if name == "train" else name
                raise InputError(
                    f"{what} has {count} {side} prompts, and an audit needs {_FEWEST} at least: "
                    "give more prompts"
                )
    return found


def attackers_part(train: PromptSplit, seed: int) -> PromptSplit:
    """A third of the prompts of every category, whole topics and whole pairs, drawn by the seed.

    Harmless prompts without a pair are drawn by themselves. The order of each side stays.
    """
    mates = {p.pair: _group(p) for p in train.harmful if p.pair is not None}
    mine = _drawn(train.harmful, [_group(p) for p in train.harmful], seed)
    keys = [
        mates.get(p.pair, _group(p)) if p.pair is not None else _group(p) for p in train.harmless
    ]
    paired = [p for p, key in zip(train.harmless, keys, strict=True) if key in mine]
    alone = [
        (p, key)
        for p, key in zip(train.harmless, keys, strict=True)
        if key not in set(mates.values())
    ]
    others = _drawn([p for p, _ in alone], [key for _, key in alone], seed)
    chosen = {p.id for p in paired} | {p.id for p, key in alone if key in others}
    return PromptSplit(
        [p for p in train.harmful if _group(p) in mine],
        [p for p in train.harmless if p.id in chosen],
    )


def _drawn(prompts: Sequence[Prompt], keys: Sequence[str], seed: int) -> set[str]:
    """Groups with a third of each category's prompts, in an order that a hash of the seed gives."""
    found: set[str] = set()
    for category in dict.fromkeys(p.category for p in prompts):
        own = [k for p, k in zip(prompts, keys, strict=True) if p.category == category]
        wanted = max(1, round(SHARE * len(own)))
        taken = 0
        for key in sorted(set(own), key=lambda key: _hashed(f"{seed}|{key}")):
            if taken < wanted:
                found.add(key)
                taken += own.count(key)
    return found


def _group(prompt: Prompt) -> str:
    """What stays together: a topic of a category, else a pair, else the prompt alone."""
    if prompt.topic:
        return f"{prompt.category}|{prompt.topic}"
    return prompt.id if prompt.pair is None else f"pair {prompt.pair}"


def _hashed(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _digest(prompts: Sequence[Prompt]) -> str:
    return _hashed(json.dumps([p.text for p in prompts]))
