"""What ablating each layer's mean difference does to prompts, several layers in one batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from somatlas.ablation import Projection, RowProjections
from somatlas.fleet import deal
from somatlas.measures.layer_rule import LayerScore, prompt_kl, refusal_scores
from somatlas.models.language_model import LanguageModel


@dataclass
class LayerEffect:
    """Of one layer: refusal scores of harmful prompts, KL in nats of harmless ones, one by one."""

    refusal: list[float] = field(default_factory=list)
    kl: list[float] = field(default_factory=list)

    def add(self, other: LayerEffect) -> None:
        """What it does to further prompts."""
        self.refusal += other.refusal
        self.kl += other.kl

    def score(self, layer: int, n: int | None = None) -> LayerScore:
        """The means. n : harmful prompts, where they are not all."""
        return LayerScore(layer, float(np.mean(self.refusal)), float(np.mean(self.kl)), n)


def layers_a_batch(prompts: int, batch_size: int) -> int:
    """How many layers are measured in one batch, each on so many prompts."""
    return max(1, batch_size // prompts)


def layer_effects(
    lm: LanguageModel,
    directions: Mapping[int, Tensor],
    harmful: Sequence[str],
    harmless: Sequence[str],
    *,
    refusal_tokens: Sequence[int],
    base_harmless: Tensor,
    batch_size: int,
    epsilon: float = 0.0,
) -> Iterator[tuple[int, LayerEffect]]:
    """Each layer, and what ablating its mean difference (d,) does.

    base_harmless : (n, vocabulary) log p of the unchanged model on the harmless prompts. epsilon :
    see `refusal_scores`.
    """
    prompts, first = [*harmful, *harmless], len(harmful)
    for some in deal(list(directions), layers_a_batch(len(prompts), batch_size)):
        rows = RowProjections([Projection(directions[layer][None]) for layer in some])
        values = torch.zeros(len(some), len(prompts), dtype=torch.float64)
        with lm.ablate(rows):
            for places, log_p in lm.next_token_log_probabilities(prompts, batch_size, rows):
                own = log_p.cpu()
                scores = refusal_scores(own, refusal_tokens, epsilon)
                for at, score, given in zip(places, scores, own, strict=True):
                    lane, place = divmod(at, len(prompts))
                    if place >= first:
                        score = prompt_kl(base_harmless[place - first][None], given[None])[0]
                    values[lane, place] = score
        for layer, found in zip(some, values.tolist(), strict=True):
            yield layer, LayerEffect(found[:first], found[first:])
