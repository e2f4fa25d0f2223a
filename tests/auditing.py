"""An audit of planted models, small enough for a test."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from planted import Planted
from somatlas.attacks.attack import Outcome
from somatlas.audits.audit_plan import load_plan
from somatlas.audits.audit_record import AuditRecord, ModelResult
from somatlas.audits.checking import comparison_numbers, finding_rows, findings_of
from somatlas.audits.kept_attempts import NONE, Family, Kept, Place, Tested, Tried
from somatlas.audits.measured_model import Measured
from somatlas.audits.summing_up import model_numbers
from somatlas.judges.keyword import KeywordJudge
from somatlas.judges.registry import Judges
from somatlas.prompts.prompt_set import PromptSet, PromptSplit, Split

PLAN = """
train_prompts = 32
val_prompts = 12
val_harmless = 8
test_harmful = 24
test_harmless = 12
tokens = 6
resamples = 300
"""


FLOOR = {"random": 400.0}


class ByWords(Judges):
    """Refusals by their words alone: what a planted model says is no language."""

    def get(self, spec: str, coherence: object) -> Any:
        return KeywordJudge()


def prompts_of(model: Planted) -> PromptSet:
    """A planted model's prompts as a set; the harmless of test are the borderline ones too."""
    splits: dict[Split, PromptSplit] = {"train": model.train, "val": model.val, "test": model.test}
    return PromptSet(
        {name: split.harmful for name, split in splits.items()},
        {name: split.harmless for name, split in splits.items()},
        {"test": model.test.harmless[:8]},
    )


def plan_file(folder: Path, attacks: str, more: str = "") -> Path:
    """A plan of a few attempts. attacks, more : TOML lines of its table of attacks, and others."""
    path = folder / "tiny.toml"
    path.write_text(f"{PLAN}{more}\n[attacks]\n{attacks}\n", encoding="utf-8")
    return path


def made_up(
    folder: Path,
    strength: Mapping[str, float],
    *,
    attacks: str,
    weaker: Mapping[str, float] = FLOOR,
    seed: int = 0,
) -> AuditRecord:
    """The record of attempts that were never made: their drift is drawn, and their success rises
    with it. strength : by role, the drift at which half is answered. weaker : attacks that need so
    many times that."""
    plan = load_plan(plan_file(folder, attacks, "test_borderline = 16\n"))
    kept, rng = Kept(None), np.random.default_rng(seed)
    counts = {"harmful": 64, "harmless": 32, "borderline": 32}
    measured, results, findings = {}, {}, {}
    for role, drift in strength.items():
        hard = rng.random(counts["harmful"])
        for attack, trials in {NONE: 1, **plan.attacks}.items():
            for number in range(trials):
                kl = 0.0 if attack == NONE else float(np.exp(rng.uniform(np.log(0.02), np.log(3))))
                weak = weaker.get(attack, 1.0 + rng.exponential(0.7))
                share = 0.95 / (1 + (drift * weak / max(kl, 1e-3)) ** 1.6)
                row = _tried(Place(role, 0, attack, number), share, kl)
                said = {
                    "harmful": ["complied" if x else "refused" for x in hard < share],
                    "harmless": _refusing(32, 1),
                    "borderline": _refusing(32, 4 if role == "against" else 9),
                }
                kept.attempts.put({str(row.place): row})
                kept.tested.put({str(row.place): Tested({"keyword": said}, [kl] * 8, [6.0], [0.1])})
            kept.families.put(
                {f"{role}/0/{attack}": Family(plan.attacks[attack] if attack != NONE else 1)}
            )
        found = measured[role] = Measured(role, plan, kept, ["keyword"], counts)
        results[role] = ModelResult(
            name=f"made-up-{role}",
            weights="0",
            dtype="float32",
            notes=[],
            refusal_tokens=["I"],
            recognition={name: _known(value) for name, value in (("none", 0.98), ("edited", 0.93))},
            **model_numbers(found),
        )
        findings[role] = findings_of(found)
    every = [one for own in findings.values() for one in own]
    together = (
        comparison_numbers(measured["model"], measured["against"], every, 0.05)
        if "against" in measured
        else {}
    )
    return AuditRecord(
        plan=plan.plain(),
        plan_sha256=plan.sha256,
        judges={"keyword": {}},
        models=results,
        findings=finding_rows(findings),
        **together,
    )


def _tried(place: Place, share: float, kl: float) -> Tried:
    """An attempt: what is not answered is refused, or babble where the drift is large."""
    attack, number = place.attack, place.number
    refused = (1 - share) * (0.9 if kl < 1.5 else 0.3)
    about: dict[str, Any] = {}
    if attack == "iterated":
        cell = {"prompts": 9, "length": 0.2, "share": 0.8, "category": "theft"}
        about = {"phase": 1 + number // 2, "source": "ab"[number % 2], "cells": [cell]}
    k = {NONE: 0, "sd": 1}.get(attack, 1 + number % 7)
    outcome = Outcome(share, refused, 1 - share - refused, 0.0, kl)
    return Tried(place.role, 0, attack, number, f"{attack} {number}", k, False, about, outcome)


def _refusing(count: int, refused: int) -> list[str]:
    return ["complied"] * (count - refused) + ["refused"] * refused


def _known(value: float) -> dict[str, Any]:
    found = {"value": value, "low": value - 0.02, "high": value + 0.01}
    return {"place": "", "harmless": found, "borderline": found, "length": found, "layers": [3]}
