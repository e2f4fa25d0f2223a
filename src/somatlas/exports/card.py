"""Where an export comes from, as a card that a person reads and as metadata."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from somatlas import __version__

_INTENDED_USE = (
    "For studying how safety training is represented and how robust it is. An edit like this one "
    "weakens or removes a model's refusals: do not put it before users, and mind the licence and "
    "the use policy of the base model, which still hold."
)


@dataclass(frozen=True)
class Provenance:
    """What was done to which model.

    directions : what they are, in words. measured : the table of a judged run, or empty.
    """

    base: str
    revision: str
    layer: int
    ranks: Sequence[int]
    mode: str
    site: str
    prompts: str
    prompts_sha256: str
    seed: int
    directions: str
    measured: str = ""

    def facts(self) -> dict[str, str]:
        """One line a fact."""
        return {
            "base model": self.base,
            "revision": self.revision,
            "directions": self.directions,
            "ablation": f"{self.mode}, site {self.site}",
            "layer": str(self.layer),
            "ranks ablated": " ".join(map(str, self.ranks)),
            "prompts": f"{self.prompts} (sha256 {self.prompts_sha256[:16]})",
            "seed": str(self.seed),
            "made by": f"somatlas {__version__}",
        }

    def card(self, title: str, form: str) -> str:
        """The README.md of an export; form says what the files are and how exact they are."""
        rows = "\n".join(f"| {name} | {value} |" for name, value in self.facts().items())
        measured = (
            f"```\n{self.measured.rstrip()}\n```"
            if self.measured
            else "Not measured: run the judge."
        )
        return (
            f"# {title}\n\n{form}\n\n| | |\n|---|---|\n{rows}\n\n## Measured\n\n{measured}\n\n"
            f"## Intended use\n\n{_INTENDED_USE}\n"
        )
