"""Which layers can still be the one that the rule chooses, from scores on the first prompts.

Every candidate is scored on a few prompts, and those that cannot win any more go no further: what
remains is scored on all prompts, and the paper's rule chooses among these.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from somatlas.ablation import Projection, RowProjections
from somatlas.measures.layer_rule import MAX_KL, LayerScore, prompt_kl, refusal_scores
from somatlas.models.language_model import LanguageModel
from somatlas.prompts.prompt_set import spread

ROUNDS = (8, 16)  # prompts a side after which layers leave the race
_SURE = 3.0  # standard errors between what is measured and what would be decided otherwise


@dataclass
class LayerEffect:
    """What ablating one layer's mean difference did to the prompts so far, one by one.

    refusal : scores of the harmful ones. kl : of the harmless ones, in nats. Both in race order.
    """

    refusal: list[float] = field(default_factory=list)
    kl: list[float] = field(default_factory=list)

    @property
    def n(self) -> int:
        """How many prompts a side it is of; of a side that has fewer, all."""
        return max(len(self.refusal), len(self.kl))

    @property
    def is_gentle(self) -> bool:
        """Whether the mean KL is below what the rule allows."""
        return bool(np.mean(self.kl) < MAX_KL)

    def add(self, other: LayerEffect) -> None:
        """Further prompts."""
        self.refusal += other.refusal
        self.kl += other.kl

    def first(self, n: int) -> LayerEffect:
        """Of the first n prompts a side."""
        return LayerEffect(self.refusal[:n], self.kl[:n])

    def score(self, layer: int, n: int | None = None) -> LayerScore:
        """The means. n : prompts a side, where they are not all."""
        return LayerScore(layer, float(np.mean(self.refusal)), float(np.mean(self.kl)), n)


def rounds(n: int) -> list[int]:
    """How many of n prompts a side are scored after each round; the last is all of them."""
    return [count for count in ROUNDS if count < n] + [n]


def race_order(n: int) -> list[int]:
    """The places of n prompts, such that those of every round are spread evenly over all."""
    order: list[int] = []
    for end in rounds(n):
        left = [place for place in range(n) if place not in order]
        order += spread(left, end - len(order))
    return order


def in_the_race(effects: Mapping[int, LayerEffect]) -> list[int]:
    """The layers that the rule may still choose.

    One is out that is surely (by 3 standard errors, over prompts) not gentle, or surely refuses
    more than the best of those that are surely gentle, on the same prompts. Where no layer seems
    gentle the rule falls back on comparing KL, and none is out.
    """
    if not any(effect.is_gentle for effect in effects.values()):
        return list(effects)
    gentle = [layer for layer, e in effects.items() if _mean(e.kl, 1) < MAX_KL]
    possible = [layer for layer, e in effects.items() if _mean(e.kl, -1) < MAX_KL]
    if not gentle:
        return possible
    leader = np.asarray(min((effects[one].refusal for one in gentle), key=np.mean))
    return [
        layer for layer in possible if _mean(np.asarray(effects[layer].refusal) - leader, -1) <= 0
    ]


def _mean(values: ArrayLike, side: int) -> float:
    """The mean, moved by 3 of its standard errors to one side."""
    x: NDArray[np.float64] = np.asarray(values, dtype=np.float64)
    error = x.std(ddof=1) / np.sqrt(len(x)) if len(x) > 1 else np.inf
    return float(x.mean() + side * _SURE * error)


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
    """Each layer, and what ablating its mean difference (d,) does; several share a batch.

    base_harmless : (n, vocabulary) log p of the unchanged model on the harmless prompts. epsilon :
    see `refusal_scores`.
    """
    prompts, first = [*harmful, *harmless], len(harmful)
    layers, lanes = list(directions), max(1, batch_size // len(prompts))
    for start in range(0, len(layers), lanes):
        some = layers[start : start + lanes]
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
