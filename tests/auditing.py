"""An audit of planted models, small enough for a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from planted import Planted
from somatlas.judges.keyword import KeywordJudge
from somatlas.judges.registry import Judges
from somatlas.prompts.prompt_set import PromptSet

PLAN = """
train_prompts = 32
val_prompts = 12
val_harmless = 8
test_harmful = 24
test_harmless = 12
tokens = 6
resamples = 300
"""


class ByWords(Judges):
    """Refusals by their words alone: what a planted model says is no language."""

    def get(self, spec: str, coherence: object) -> Any:
        return KeywordJudge()


def prompts_of(model: Planted) -> PromptSet:
    """A planted model's prompts as a set; the harmless of test are the borderline ones too."""
    splits = {"train": model.train, "val": model.val, "test": model.test}
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
