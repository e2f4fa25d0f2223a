"""A direction, or a set, of its own for each block's writes."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from optuna.trial import Trial
from torch import Tensor

from somatlas.ablation import LayerProjections
from somatlas.attacks.attack import Ablated, Attack, Attempt, Count, Rounds
from somatlas.attacks.pools import pool_of
from somatlas.attacks.target import Target
from somatlas.attacks.tuning import tuned

KS = 7  # directions a block, at most
_DRAWS = 8  # random sets of each size that may be taken of the maps
# At full strength: every block, and the first half, where refusal is decided rather than written.
_WHOLE = {"peak": 1.0, "least": 1.0, "centre": 0.5, "reach": 1.0}
_FIRST_HALF = {"peak": 1.0, "least": 1.0, "centre": 0.25, "reach": 0.25}


class LayerwiseAttack(Attack):
    """What each block writes loses that block's own directions, by a strength of its own.

    One direction a layer is what brought published defences down that held against one for all
    (bigwolfeman/deeprefusal-robustness, E4); strengths by layer are Heretic's kernel
    (p-e-w/heretic): `peak` at the block `centre`, falling linearly to `least` of that at `reach`
    (both shares of the depth), nothing beyond. grid : of each layer's map.
    """

    name = "layerwise"
    title = "own directions of every layer"
    summary = "each block's writes lose that block's own mean difference or k of its map's neurons"

    def __init__(self, grid: tuple[Count, Count] = (4, 4)) -> None:
        self.grid = grid

    def rounds(self, target: Target) -> Rounds:
        makes = _sources(target, self.grid)
        depth = target.lm.n_layers

        def suggest(trial: Trial) -> Attempt:
            source = trial.suggest_categorical("source", ["sd", "som"])
            k = 1 if source == "sd" else trial.suggest_int("k", 1, KS)
            draw = 0 if source == "sd" else trial.suggest_int("draw", 0, _DRAWS)
            shape = {
                "peak": trial.suggest_float("peak", 0.4, 1.4, step=0.1),
                "least": trial.suggest_float("least", 0.0, 1.0, step=0.25),
                "centre": trial.suggest_float("centre", 0.0, 1.0, step=0.05),
                "reach": trial.suggest_float("reach", 0.2, 1.0, step=0.05),
            }
            directions = makes[source](k, draw)
            return Ablated(
                self.name,
                f"{source}, k {k}{f', draw {draw}' if draw else ''}, {described(shape)}",
                k,
                {"source": source, "draw": draw, **shape},
                LayerProjections.of_directions(directions, strengths(depth, **shape)),
            )

        yield from tuned(suggest, _first(), target.seed)


def strengths(depth: int, peak: float, least: float, centre: float, reach: float) -> list[float]:
    """The strength of each of `depth` blocks, of one at least above 0.

    >>> strengths(5, peak=1.0, least=0.5, centre=0.5, reach=0.5)
    [0.5, 0.75, 1.0, 0.75, 0.5]
    >>> strengths(5, peak=1.0, least=0.0, centre=0.25, reach=0.25)
    [0.0, 1.0, 0.0, 0.0, 0.0]
    """
    last = max(1, depth - 1)
    away = [abs(block / last - centre) / reach for block in range(depth)]
    found = [peak * (1 - a * (1 - least)) if a <= 1 + 1e-9 else 0.0 for a in away]
    if not any(found):  # between two blocks of few
        found[away.index(min(away))] = peak
    return found


def described(shape: Mapping[str, float]) -> str:
    """In an attempt's name."""
    if shape["least"] == 1 and shape["reach"] == 1:
        return f"strength {shape['peak']:g}"
    return ", ".join(f"{name} {value:g}" for name, value in shape.items())


def _first() -> list[dict[str, Any]]:
    """The plain ones."""
    own: list[dict[str, Any]] = [{"source": "sd"}, {"source": "som", "k": 3, "draw": 0}]
    return [{**one, **shape} for shape in (_WHOLE, _FIRST_HALF) for one in own]


def _sources(
    target: Target, grid: tuple[int, int]
) -> Mapping[str, Callable[[int, int], list[Tensor]]]:
    """Name -> (k, draw) -> directions of each block, (k, d) each; draw 0 takes the first ranks."""
    differences = target.differences()

    @cache
    def maps() -> list[Tensor]:
        return [pool_of(target, "som", layer, {"grid": grid}).vectors for layer in target.layers]

    def single(_k: int, _draw: int) -> list[Tensor]:
        return list(differences[:, None])

    def neurons(k: int, draw: int) -> list[Tensor]:
        found = []
        for layer, vectors in enumerate(maps()):
            size = min(k, len(vectors))
            rng = random.Random(f"{target.seed}:{k}:{draw}:{layer}")
            ranks = sorted(rng.sample(range(len(vectors)), size)) if draw else range(size)
            found.append(vectors[list(ranks)])
        return found

    return {"sd": single, "som": neurons}
