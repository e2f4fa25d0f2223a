"""The span that LEACE (Belrose et al. 2306.03819) removes to hide a label, by concept-erasure."""

from __future__ import annotations

import torch
from torch import Tensor

from somatlas.directions.contract import COUNT, Contrast, DirectionMethod
from somatlas.errors import InputError

_PACKAGE = {"concept_erasure": "somatlas[leace]"}


class LEACEDirections(DirectionMethod):
    """Of the labels harmless and each category. `fit` needs a context with `categories`.

    count : how many directions, at most; there are as many as categories.
    """

    name = "leace"
    title = "LEACE of the categories (arXiv 2306.03819)"
    summary = "the span that LEACE removes to hide the category"
    makes_axes = True
    requires = _PACKAGE

    def __init__(self, count: int = COUNT) -> None:
        self.count = count

    def make(self, contrast: Contrast) -> Tensor:
        """An orthonormal basis of the span, largest singular value first."""
        categories = contrast.context.categories
        if not categories:
            raise InputError(
                "method 'leace' needs the categories of the harmful prompts: give fit a "
                "context=Context(categories=...)"
            )
        names = sorted(set(categories))
        labels = torch.zeros(len(contrast.harmful) + len(contrast.harmless), len(names))
        for row, category in enumerate(categories):
            labels[row, names.index(category)] = 1
        return _erased(contrast, labels)[: self.count]


class BinaryLEACEDirection(DirectionMethod):
    """Of the one label harmful or not.

    What LEACE removes is the span of the covariance of vectors and label, and of one binary label
    that is the mean difference: ablated as every direction is here, orthogonally, this is SD.
    LEACE's own projection is oblique.
    """

    name = "leace-binary"
    title = "LEACE of harmful or not (arXiv 2306.03819)"
    summary = "the direction that LEACE removes to hide whether a prompt is harmful, which is SD"
    makes_one = makes_axes = True
    requires = _PACKAGE

    def make(self, contrast: Contrast) -> Tensor:
        """One unit vector."""
        labels = torch.zeros(len(contrast.harmful) + len(contrast.harmless), 1)
        labels[: len(contrast.harmful)] = 1
        return _erased(contrast, labels)[:1]


def _erased(contrast: Contrast, labels: Tensor) -> Tensor:
    """(r, d) the span that hides labels (n + m, c) of the harmful, then the harmless vectors."""
    from concept_erasure import LeaceEraser

    both = torch.cat([contrast.harmful, contrast.harmless])
    eraser = LeaceEraser.fit(both, labels.double())
    axes, values, _ = torch.linalg.svd(eraser.proj_left, full_matrices=False)
    kept: Tensor = axes[:, values > 1e-6 * values[0]].T
    return kept
