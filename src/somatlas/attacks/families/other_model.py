"""Attacks that take something of a second model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from somatlas.attacks.attack import (
    ROUND,
    Ablated,
    Attack,
    Attempt,
    Count,
    Counts,
    Rounds,
    in_rounds,
)
from somatlas.attacks.families.searched_sets import KS, LAYERS
from somatlas.attacks.families.single_direction import single_directions
from somatlas.attacks.pools import pool_of
from somatlas.attacks.set_search import SetSearch
from somatlas.attacks.target import Target
from somatlas.errors import InputError
from somatlas.models.language_model import LanguageModel
from somatlas.models.swapped import swapped


class TransferAttack(Attack):
    """Directions of the second model ablated in the first: its mean differences by its own screen,
    then sets of its maps' neurons, searched on the first. Where fresh directions are no better,
    refusal was not moved. layers, grid : of the maps. ks : as `MethodAttack`'s."""

    name = "transfer"
    title = "directions of the other model"
    summary = "the other model's mean differences and map neurons, ablated here"
    threat = "C"
    needs_other = True

    def __init__(
        self,
        layers: Count = LAYERS,
        grid: tuple[Count, Count] = (4, 4),
        ks: Counts = KS,
    ) -> None:
        self.layers = layers
        self.grid = grid
        self.ks = ks

    def check(self, target: Target) -> None:
        super().check(target)
        target.of_other()

    def rounds(self, target: Target) -> Rounds:
        other = target.of_other()
        yield single_directions(self.name, other)[:ROUND]
        layers = [score.layer for score in other.screened_layers()[: self.layers]]
        pools = [pool_of(other, "som", layer, {"grid": self.grid}) for layer in layers]
        yield from SetSearch(self.name, pools, self.ks, target.seed).rounds()


@dataclass(frozen=True)
class Stripped(Attempt):
    """The difference between two models' weights, all but a share of it taken back.

    W becomes W_other + keep (W - W_other), in float32, rounded once to the type of W. then : what
    is done to the model that is left.
    """

    other: LanguageModel = field(compare=False)
    keep: float
    then: Attempt | None = field(default=None, compare=False)

    def applied(self, lm: LanguageModel) -> AbstractContextManager[None]:
        return self._both(lm, edited=False)

    def edited(self, lm: LanguageModel) -> AbstractContextManager[None]:
        return self._both(lm, edited=True)

    @contextmanager
    def _both(self, lm: LanguageModel, *, edited: bool) -> Iterator[None]:
        with swapped(lm.model, attenuated(lm, self.other, self.keep)):
            if self.then is None:
                yield
                return
            with self.then.edited(lm) if edited else self.then.applied(lm):
                yield


class StripAttack(Attack):
    """The fine-tuning that made the model safe is taken back by its difference to the other model,
    in whole or but for a share, and each layer's mean difference ablated, extracted anew on what is
    left: what brought down released defences whose base is public (wuwangzhang1216/abliterix,
    "broken defenses"). keeps : shares of the difference that stay."""

    name = "strip"
    title = "difference to the other model taken back"
    summary = "the weights brought back towards the other model's, then a single direction"
    threat = "C"
    needs_other = True

    def __init__(
        self, keeps: Annotated[tuple[float, ...], Field(min_length=1)] = (0.3, 0.0)
    ) -> None:
        self.keeps = keeps

    def check(self, target: Target) -> None:
        super().check(target)
        if target.other is not None and not sum(1 for _ in _differing(target.lm, target.other)):
            raise InputError(
                f"{target.other.name} has the weights of {target.lm.name}: there is no difference "
                "to take back"
            )

    def rounds(self, target: Target) -> Rounds:
        tracks = [self._singles(target, keep) for keep in self.keeps]
        yield from in_rounds(list(chain.from_iterable(zip(*tracks, strict=True))))

    def _singles(self, target: Target, keep: float) -> list[Attempt]:
        assert target.other is not None
        label = f"{keep:g} kept"
        stripped = Stripped(self.name, label, 0, {"keep": keep}, target.other, keep)
        folder = None if target.folder is None else target.folder / f"stripped {keep:g}"
        with stripped.applied(target.lm):
            singles = single_directions(self.name, replace(target, other=None, folder=folder))
        return [
            replace(
                stripped,
                name=f"{label}, {one.name}",
                k=one.k,
                about={**one.about, "keep": keep},
                then=one,
            )
            for one in singles
            if isinstance(one, Ablated)
        ]


@torch.no_grad()
def attenuated(lm: LanguageModel, other: LanguageModel, keep: float) -> dict[int, Tensor]:
    """id of a parameter of lm -> other's value + keep (own - other's), where the two differ.

    Raises InputError where the models have not the same parameters, or not plain numbers.
    """
    found: dict[int, Tensor] = {}
    for own, base in _differing(lm, other):
        mixed = base.float() + keep * (own.float() - base.float())
        found[id(own)] = mixed.to(own.dtype)
    return found


def _differing(lm: LanguageModel, other: LanguageModel) -> Iterator[tuple[Tensor, Tensor]]:
    """Each parameter of lm whose values are not the other's, with that one; raises as above."""
    theirs = dict(other.model.named_parameters(remove_duplicate=False))
    ours = dict(lm.model.named_parameters(remove_duplicate=False))
    if {n: p.shape for n, p in ours.items()} != {n: p.shape for n, p in theirs.items()}:
        raise InputError(
            f"{other.name} has not the parameters of {lm.name}: the difference of two models of "
            "one architecture is what can be taken back"
        )
    known: set[int] = set()
    for name, own in ours.items():
        if not (own.is_floating_point() and own.dtype.itemsize > 1) or own.is_meta:
            raise InputError(
                f"the weights of {name} are packed or offloaded ({own.dtype}): load both models "
                "without quantisation to take back their difference"
            )
        base = theirs[name].to(own.device)
        if id(own) not in known and not torch.equal(base, own):
            known.add(id(own))
            yield own, base
