"""Directions made again under the ablation so far, phase after phase."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from somatlas.ablation import LayerProjections, Projection
from somatlas.attacks.attack import Ablated, Attack, Attempt, Count, Rounds
from somatlas.attacks.cells import cells_after
from somatlas.attacks.pools import fitted
from somatlas.attacks.target import Target
from somatlas.directions.contract import Contrast, DirectionMethod
from somatlas.measures.layer_rule import MAX_KL

Made = tuple[Tensor, dict[str, Any]]  # directions (k, d), and what is to be known of them
PHASES = 16
LAYERS = 4  # that a phase chooses from


class IteratedAttack(Attack):
    """Representations, and the directions of them, made anew under the ablation so far: what a
    model that hides or repeats its refusal shows once the first directions are gone (DDO's n-phase
    attack, aashiqmuhamed/defending-against-abliteration; iterated mean differences of Mody et al.,
    ICML-W 2026).

    A round is one phase of each of three tracks: the mean difference of one layer, some neurons of
    that layer's map, and every block's own mean difference. The span of all phases' directions is
    ablated, so a later one adds what the earlier left. Phase 1 is the plain attack. Of each map
    `about` has the cells (`somatlas.attacks.cells`): where its prompts were on the first one.
    phases : at most. neurons : of the map, a phase. grid : of the map.
    """

    name = "iterated"
    title = "iterated extraction"
    summary = "directions made again under the ablation so far, phase after phase"

    def __init__(
        self, phases: Count = PHASES, neurons: Count = 3, grid: tuple[Count, Count] = (4, 4)
    ) -> None:
        self.phases = phases
        self.neurons = neurons
        self.grid = grid

    def rounds(self, target: Target) -> Rounds:
        def single(layer: int, under: Attempt | None) -> Made:
            return target.differences(under)[layer][None], {}

        how = {"grid": self.grid}
        categories = [prompt.category for prompt in target.train.harmful]
        first = _ranks(*fitted(target, "som", target.screened_layers()[0].layer, how))

        def neurons(layer: int, under: Attempt | None) -> Made:
            made, contrast = fitted(target, "som", layer, how, under)
            vectors = made.directions_.vectors
            lengths = vectors.double().norm(dim=1) / contrast.harmful.norm(dim=1).mean()
            cells = cells_after(_ranks(made, contrast), first, lengths.tolist(), categories)
            return vectors[: self.neurons], {"cells": cells}

        tracks: list[_Layer | _Everywhere] = [
            _Layer(target, self.name, "sd", single),
            _Layer(target, self.name, "som", neurons),
            _Everywhere(target, self.name),
        ]
        so_far: list[Attempt | None] = [None] * len(tracks)
        for phase in range(1, self.phases + 1):
            batch = [
                track.next(before, phase) for track, before in zip(tracks, so_far, strict=True)
            ]
            made = [attempt for attempt in batch if attempt is not None]
            if not made:
                return
            yield made
            tracks = [
                track for track, attempt in zip(tracks, batch, strict=True) if attempt is not None
            ]
            so_far = list(made)


@dataclass
class _Layer:
    """Phases that take directions of one layer each, and ablate them everywhere."""

    target: Target
    family: str
    source: str
    make: Callable[[int, Attempt | None], Made]

    def next(self, before: Attempt | None, phase: int) -> Attempt | None:
        """The phase after one; None once there is nothing new to remove."""
        layers = [score.layer for score in self.target.screened_layers()[:LAYERS]]
        if before is None:
            return self._with(before, phase, layers[0])
        tried = [one for layer in layers if (one := self._with(before, phase, layer)) is not None]
        scores = [self.target.first_token_scores(one) for one in tried]
        kl = [k for _, k in scores]
        # As the layers are screened: those that add little drift first, then by refusal.
        order = sorted(
            range(len(tried)), key=lambda i: (kl[i] - min(kl) >= MAX_KL, scores[i][0], i)
        )
        return tried[order[0]] if order else None

    def _with(self, before: Attempt | None, phase: int, layer: int) -> Attempt | None:
        new, about = self.make(layer, before)
        if before is not None:
            new = _together(_directions(before), new)
        projection = Projection(new, "subspace")
        k = projection.A.shape[1]
        if before is not None and k <= before.k:
            return None
        chosen = [*(before.about["layers"] if before is not None else ()), layer]
        about = {"source": self.source, "phase": phase, "layers": chosen, **about}
        name = f"{self.source}, phase {phase}, layer{'s' * (phase > 1)} {_listed(chosen)}"
        return Ablated(self.family, name, k, about, projection)


@dataclass
class _Everywhere:
    """Phases that take every block's own mean difference."""

    target: Target
    family: str

    def next(self, before: Attempt | None, phase: int) -> Attempt | None:
        """The phase after one; None once there is nothing new to remove."""
        new = list(self.target.differences(before)[:, None])
        if before is not None:
            assert isinstance(before.ablation, LayerProjections)
            earlier = [p.vectors for p in before.ablation.blocks if p is not None]
            new = [_together(a, b) for a, b in zip(earlier, new, strict=True)]
        made = LayerProjections.of_directions(new)
        k = max(p.A.shape[1] for p in made.blocks if p is not None)
        if before is not None and k <= before.k:
            return None
        about: dict[str, Any] = {"source": "layerwise", "phase": phase}
        return Ablated(self.family, f"layerwise, phase {phase}", k, about, made)


def _ranks(made: DirectionMethod, contrast: Contrast) -> NDArray[np.int64]:
    """(n,) the rank of the map's neuron that each harmful representation is nearest to."""
    place = {neuron: rank for rank, neuron in enumerate(made.directions_.neurons.tolist())}
    nearest = made.partition(contrast.harmful)
    assert nearest is not None  # the map makes parts
    return np.array([place[neuron] for neuron in nearest.tolist()])


def _directions(attempt: Attempt) -> Tensor:
    assert isinstance(attempt.ablation, Projection)
    return attempt.ablation.vectors


def _together(earlier: Tensor, new: Tensor) -> Tensor:
    """Earlier directions and new ones of length 1, those left out that have no length."""
    new = new.double()
    lengths = new.norm(dim=1)
    kept = lengths > 0
    return torch.cat([earlier, new[kept] / lengths[kept, None]])


def _listed(numbers: list[int]) -> str:
    return " ".join(map(str, numbers))
