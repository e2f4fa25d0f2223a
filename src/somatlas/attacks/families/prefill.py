"""Replies opened with the model's own ablated words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from somatlas.attacks.attack import Ablated, Attack, Attempt, Count, Counts, Rounds
from somatlas.attacks.families.single_direction import single_directions
from somatlas.attacks.target import Target
from somatlas.models.generation import first_reply_tokens
from somatlas.models.language_model import LanguageModel

LENGTHS = (16, 4, 32, 8)
LAYERS = 4


@dataclass(frozen=True)
class Prefilled(Attempt):
    """The model as it is goes on with what it says itself under an ablation.

    tokens : of the opening, at most: a reply that ends before is opened with all of it.
    """

    ablated: Attempt = field(compare=False)
    tokens: int

    def openings(
        self, lm: LanguageModel, prompts: Sequence[str], batch_size: int
    ) -> list[list[int]]:
        with self.ablated.applied(lm):
            return first_reply_tokens(lm, prompts, self.tokens, batch_size)


class PrefillAttack(Attack):
    """The reply is opened with the first tokens of the model's own reply under the ablation of one
    layer's mean difference, and the unchanged model goes on (prefill attacks: Andriushchenko et al.
    2404.02151; shallow alignment: Qi et al. 2406.05946).

    No text from elsewhere is used. lengths : in tokens, those tried of one layer. layers : how
    many, by the screen.
    """

    name = "prefill"
    title = "prefilled replies"
    summary = "replies opened with the model's own words under ablation, nothing edited"

    def __init__(self, lengths: Counts = LENGTHS, layers: Count = LAYERS) -> None:
        self.lengths = lengths
        self.layers = layers

    def rounds(self, target: Target) -> Rounds:
        for one in single_directions(self.name, target)[: self.layers]:
            yield [self._opened(one, tokens) for tokens in self.lengths]

    def _opened(self, ablated: Attempt, tokens: int) -> Attempt:
        assert isinstance(ablated, Ablated)
        name = f"{ablated.name}, {tokens} tokens"
        return Prefilled(self.name, name, 0, {**ablated.about, "tokens": tokens}, ablated, tokens)
