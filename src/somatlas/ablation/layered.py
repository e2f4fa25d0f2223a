"""A projection of its own for the writes of each block."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from somatlas.ablation.projection import Mode, Projection
from somatlas.errors import InputError


class LayerProjections:
    """What each block writes is projected by that block's own map, P_b = I - A_b B_b^T.

    blocks : one for each decoder block, None where its writes stay as they are. embeddings : that
    of what the embeddings write.

    Raises InputError where there is none at all, or they are of different lengths d.

    >>> layered = LayerProjections([Projection([[0.0, 1.0]]), None])
    >>> layered.at(0) is layered.blocks[0], layered.at(1), layered.at(None), layered.d_model
    (True, None, None, 2)
    """

    def __init__(
        self, blocks: Sequence[Projection | None], embeddings: Projection | None = None
    ) -> None:
        self.blocks, self.embeddings = tuple(blocks), embeddings
        lengths = {p.d_model for p in (embeddings, *self.blocks) if p is not None}
        if len(lengths) != 1:
            raise InputError(
                "projections by layer must be one at least, of vectors of one length, not "
                f"{' and '.join(map(str, sorted(lengths))) or 'none'}"
            )
        (self.d_model,) = lengths

    @classmethod
    def of_directions(
        cls,
        directions: Sequence[Tensor],
        strengths: Sequence[float] | None = None,
        mode: Mode = "subspace",
    ) -> LayerProjections:
        """Each block's writes lose its own directions, the embeddings' those of the first block.

        directions : of each block, (k, d). strengths : of each, 0 for none at all; 1 everywhere if
        not given. Raises InputError where they are not one each, or all strengths are 0.
        """
        shares = [1.0] * len(directions) if strengths is None else list(strengths)
        if len(shares) != len(directions):
            raise InputError(
                f"there are directions of {len(directions)} layers and {len(shares)} strengths: "
                "give one each"
            )
        blocks = [
            Projection(own, mode, share) if share else None
            for own, share in zip(directions, shares, strict=True)
        ]
        return cls(blocks, blocks[0])

    def at(self, block: int | None) -> Projection | None:
        """What acts on the writes of a block, or of the embeddings (None).

        Raises InputError for a block that it knows nothing of.
        """
        if block is None:
            return self.embeddings
        if block >= len(self.blocks):
            raise InputError(
                f"there are projections for {len(self.blocks)} blocks, and the model has more: "
                "they belong to another model"
            )
        return self.blocks[block]
