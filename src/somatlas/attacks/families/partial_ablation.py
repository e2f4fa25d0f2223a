"""Gentle edits of one direction: weaker, in a window of layers, cleaned, or keeping norms."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from optuna.trial import Trial
from torch import Tensor

from somatlas.ablation import LayerProjections, norm_preserving
from somatlas.attacks.attack import Ablated, Attack, Attempt, Count, Rounds
from somatlas.attacks.target import Target
from somatlas.attacks.tuning import tuned
from somatlas.errors import InputError
from somatlas.models.language_model import LanguageModel
from somatlas.models.output_maps import Placed, placed_output_maps
from somatlas.models.packed import repack
from somatlas.models.swapped import swapped

LAYERS = 4


@dataclass(frozen=True)
class NormPreserved(Attempt):
    """Weights that lose directions and keep the length of what each of their inputs writes.

    maps : every matrix that writes, with its block.
    """

    projections: LayerProjections = field(compare=False)
    maps: Placed = field(compare=False, repr=False)

    def applied(self, lm: LanguageModel) -> AbstractContextManager[None]:
        return swapped(lm.model, norm_preserving(self.maps, self.projections))

    def edited(self, lm: LanguageModel) -> AbstractContextManager[None]:
        return self.applied(lm)


class PartialAttack(Attack):
    """A layer's mean difference, ablated as gently as it goes: by part of its strength, from the
    writes of some blocks alone, without its share along the harmless mean, or so that the weights
    keep their norms.

    What p-e-w/heretic tunes (strength, window) and grimjim's "projected" and "norm-preserving"
    abliteration. layers : how many directions to choose from, by the screen.
    """

    name = "partial"
    title = "partial and gentle edits"
    summary = "one direction by part of its strength, in a window of layers, cleaned, norms kept"

    def __init__(self, layers: Count = LAYERS) -> None:
        self.layers = layers

    def rounds(self, target: Target) -> Rounds:
        lm = target.lm
        layers = [score.layer for score in target.screened_layers()[: self.layers]]
        maps, reason = _maps(lm)
        differences, cleaned = target.differences(), _cleaned(target)

        def suggest(trial: Trial) -> Attempt:
            layer = layers[trial.suggest_int("layer", 0, len(layers) - 1)]
            about: dict[str, Any] = {
                "layer": layer,
                "strength": trial.suggest_float("strength", 0.2, 1.0, step=0.1),
                "cleaned": trial.suggest_categorical("cleaned", [False, True]),
                "start": trial.suggest_float("start", 0.0, 0.8, step=0.1),
                "length": trial.suggest_float("length", 0.2, 1.0, step=0.1),
            }
            keeps = bool(maps) and trial.suggest_categorical("keeps_norms", [False, True])
            about["keeps_norms"] = keeps if maps else f"not possible: {reason}"
            direction = (cleaned if about["cleaned"] else differences)[layer][None]
            blocks = window(lm.n_layers, about["start"], about["length"])
            # Norms are kept in the blocks alone: a head may read the embedding's matrix.
            everywhere = len(blocks) == lm.n_layers and not keeps
            shares = [about["strength"] if b in blocks else 0.0 for b in range(lm.n_layers)]
            made = LayerProjections.of_directions([direction] * lm.n_layers, shares)
            made = LayerProjections(made.blocks, made.blocks[0] if everywhere else None)
            about["blocks"] = [blocks[0], blocks[-1]]
            name = (
                f"layer {layer}, strength {about['strength']:g}, blocks {blocks[0]} to {blocks[-1]}"
                f"{', cleaned' * about['cleaned']}{', norms kept' * keeps}"
            )
            if keeps:
                return NormPreserved(self.name, name, 1, about, made, maps)
            return Ablated(self.name, name, 1, about, made)

        whole = {"layer": 0, "strength": 1.0, "cleaned": False, "start": 0.0, "length": 1.0}
        first = [
            {**whole, "cleaned": True, "keeps_norms": False},
            {**whole, "keeps_norms": True},
            {**whole, "strength": 0.5, "keeps_norms": False},
            {**whole, "start": 0.3, "length": 0.5, "keeps_norms": False},
        ]
        yield from tuned(suggest, first, target.seed)


def window(depth: int, start: float, length: float) -> range:
    """The blocks of a window that begins at a share of the depth, one at least.

    >>> window(30, 0.3, 0.5), window(4, 0.8, 1.0)
    (range(9, 24), range(3, 4))
    """
    first = min(depth - 1, round(start * depth))
    return range(first, max(first + 1, min(depth, round((start + length) * depth))))


def _cleaned(target: Target) -> Tensor:
    """(L, d) each layer's mean difference, made orthogonal to its harmless mean."""
    _, harmless = target.representations()
    means = harmless.double().mean(dim=0)
    means = means / means.norm(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
    differences = target.differences().double()
    cleaned: Tensor = differences - (differences * means).sum(dim=1, keepdim=True) * means
    return cleaned.float()


def _maps(lm: LanguageModel) -> tuple[Placed, str]:
    """The matrices that write in the blocks; none, and why, where they cannot be edited."""
    try:
        found = placed_output_maps(lm.model, lm.structure)
    except InputError as error:
        return [], str(error)
    finally:
        repack(lm.model)
    return [(block, maps) for block, maps in found if block is not None], ""
