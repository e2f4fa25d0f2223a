"""Representations of both sides of a split: in memory, or read from shards when asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from somatlas.arguments import check_kind
from somatlas.errors import InputError
from somatlas.models.language_model import MODEL, LanguageModel
from somatlas.numerics.real_values import real_array
from somatlas.progress import progress
from somatlas.prompts.prompt_set import PromptSplit, check_split, texts
from somatlas.representations.extract import check_layers, residual_stream
from somatlas.representations.store import RepresentationStore, Side


class Vectors(Protocol):
    """(n, L, d) float32: what an array does that is asked for all prompts at one layer's place."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, index: Any, /) -> Any: ...

    def __len__(self) -> int: ...


@dataclass(frozen=True)
class Representations:
    """The residual stream at one token of each prompt of two sides.

    harmful, harmless : (n, L, d) and (m, L, d) float32. layers : the L layers, in the order of the
    second axis; all of a model's where none were chosen, so that the place is the layer. prompts :
    what they are of.
    """

    harmful: Vectors
    harmless: Vectors
    layers: tuple[int, ...]
    prompts: PromptSplit

    def __post_init__(self) -> None:
        shapes = [tuple(side.shape) for side in (self.harmful, self.harmless)]
        fits = all(len(s) == 3 and s[1:] == (len(self.layers), *shapes[0][2:]) for s in shapes)
        if not fits:
            raise InputError(
                f"representations must be (prompts, {len(self.layers)} layers, d) on both sides, "
                f"not {shapes[0]} and {shapes[1]}"
            )
        counts = len(self.prompts.harmful), len(self.prompts.harmless)
        if counts != (shapes[0][0], shapes[1][0]):
            raise InputError(
                f"there are {counts[0]} and {counts[1]} prompts, and representations of "
                f"{shapes[0][0]} and {shapes[1][0]}"
            )

    def place(self, layer: int) -> int:
        """Where a layer stands on the second axis; raises InputError where it was not kept."""
        if layer not in self.layers:
            kept = ", ".join(map(str, self.layers))
            raise InputError(f"layer {layer} was not kept: the representations have layers {kept}")
        return self.layers.index(layer)

    def mean_differences(self) -> NDArray[np.float32]:
        """(L, d) the single direction of every layer: mean harmful minus mean harmless."""
        places = range(len(self.layers))
        harmful, harmless = (
            np.stack([real_array(side[:, p], "representations").mean(axis=0) for p in places])
            for side in (self.harmful, self.harmless)
        )
        return np.asarray(harmful - harmless, dtype=np.float32)


def represent(
    lm: LanguageModel,
    prompts: PromptSplit,
    *,
    layers: Sequence[int] | None = None,
    position: int = -1,
    batch_size: int = 128,
) -> Representations:
    """Both sides of a split, at the last token of each chat-formatted prompt.

    layers : all of the model's blocks if not given; layer l is the output of block l, and
    `Representations.place` says where it stands. position : the token that is read, counted as
    Python counts. batch_size : prompts in a forward pass.

    Raises InputError for a side without prompts, a layer or position out of range, or values that
    are not finite.
    """
    check_kind("lm", lm, LanguageModel, MODEL)
    check_split(prompts)
    asked = range(lm.n_layers) if layers is None else layers
    kept = check_layers(lm.name, lm.n_layers, asked)
    sides = []
    with progress("represent", len(prompts.harmful) + len(prompts.harmless)) as advance:
        for side in (prompts.harmful, prompts.harmless):
            vectors = residual_stream(
                lm, texts(side), kept, batch_size=batch_size, position=position, advance=advance
            )
            sides.append(vectors.numpy())
    return Representations(sides[0], sides[1], kept, prompts)


@dataclass(frozen=True)
class StoredSide:
    """One side of a store as an array (n, L, d) that is read when it is indexed.

    `side[:, place]` reads the (n, d) vectors of one layer and nothing else; any other index reads
    all of them first.
    """

    store: RepresentationStore
    side: Side

    @property
    def shape(self) -> tuple[int, int, int]:
        """(n, L, d)."""
        return self.store.counts[self.side], len(self.store.layers), self.store.d_model

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any, /) -> Any:
        one_layer = isinstance(index, tuple) and len(index) == 2 and index[0] == slice(None)
        if one_layer and isinstance(index[1], int | np.integer):
            layer = self.store.layers[index[1]]
            return self.store.at(self.side, layer).numpy()
        return self.__array__()[index]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        layers = [self.store.at(self.side, layer).numpy() for layer in self.store.layers]
        return np.stack(layers, axis=1).astype(dtype or np.float32)


def stored_representations(store: RepresentationStore, prompts: PromptSplit) -> Representations:
    """The representations in a store, read when they are indexed."""
    return Representations(
        StoredSide(store, "positive"), StoredSide(store, "negative"), store.layers, prompts
    )
