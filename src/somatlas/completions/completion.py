"""A completion: one prompt, what was said to it, and how."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from somatlas.prompts.prompt_set import prompt_id
from somatlas.records import rows_of


@dataclass(frozen=True)
class Completion:
    """One reply. kind is harmful, harmless or borderline.

    reasoning : what the model thought aloud before it. system : the system prompt, where they
    differ. sample : which of several replies to the prompt. ended : whether it ended by itself,
    None where that is not known (a server's). prompt_id : of the prompt's text, worked out where
    it is not given.
    """

    kind: str
    category: str
    prompt: str
    reply: str
    reasoning: str = ""
    system: str = ""
    sample: int = 0
    ended: bool | None = None
    prompt_id: str = ""

    def __post_init__(self) -> None:
        if not self.prompt_id:
            object.__setattr__(self, "prompt_id", prompt_id(self.prompt))


def read_completions(path: Path) -> list[Completion]:
    """The completions of a file of a run; raises InputError where it is missing, damaged or
    empty."""
    return rows_of(path, Completion, "completion")
