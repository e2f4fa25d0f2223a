"""Controls of the atlas: another harmless side, and each direction alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from somatlas.ablation import Projection
from somatlas.atlases.contrast import Side, contrast_sides
from somatlas.atlases.knobs import cochran_q, one_knob_test
from somatlas.atlases.subject import Subject
from somatlas.directions.direction_set import mean_difference
from somatlas.numerics.geometry import cosine_matrix
from somatlas.numerics.statistics import mcnemar, wilson
from somatlas.progress import Advance, progress
from somatlas.prompts import general_prompts
from somatlas.prompts.prompt_set import spread, texts

_ARM_PROMPTS = 32  # test prompts a kind that are answered under each harmless side's SD
_CELL_PROMPTS = 16  # and under each direction alone, of which there are four times as many
_DRIFT_REPLIES = 8  # that the KL of each is taken on
_KINDS = {
    "harmful": "refusal",
    "harmless": "harmless_refusal",
    "borderline": "borderline_refusal",
}

Floats = NDArray[np.float64]


def contrast(subject: Subject) -> dict[str, Any]:
    """What an atlas has under `contrast`: SD of each harmless side ablated."""
    sides, missing = _sides(subject)
    vectors = [_single(subject, side) for side in sides]
    arms = [Projection(vector[None]) for vector in vectors]
    kinds = tuple(_KINDS)
    refused, kl, how = _measured("harmless sides", subject, arms, {0: "base"}, kinds, _ARM_PROMPTS)
    found = _contrast(sides, vectors, refused, kl, missing, subject.seed)
    return {"contrast": {**how, **found}}


def knobs(subject: Subject) -> dict[str, Any]:
    """What an atlas has under `knobs`: SD, and each direction alone, ablated."""
    count, each = min(subject.candidates, len(subject.directions)), subject.directions.vectors
    if count < 2:
        return {"knobs": None}
    cells = [Projection(each[[rank]]) for rank in range(count)]
    alone = [Projection(subject.contrast.single[None]), *cells]
    kinds, same = ("harmful", "borderline"), {0: "base", 1: "sd"}
    refused, kl, how = _measured("knobs", subject, alone, same, kinds, _CELL_PROMPTS)
    return {"knobs": {**how, **_knobs(refused, kl, subject.seed)}}


def _measured(
    label: str,
    subject: Subject,
    projections: Sequence[Projection],
    same: Mapping[int, str],
    kinds: Sequence[str],
    count: int,
) -> tuple[dict[str, Floats], list[float], dict[str, int]]:
    """Refusals of each kind (`_refused`), KL of each ablation, and how both were measured.

    same : which of them are a run's conditions (`Subject.known`).
    """
    with progress(label, len(kinds) + len(projections)) as advance:
        refused = _refused(subject, projections, same, kinds, count, advance)
        drift, kl = subject.drift.sample(_DRIFT_REPLIES), []
        for projection in projections:
            kl.append(drift.under(projection))
            advance(1)
    how = {"tokens": subject.asking.refusal_tokens, "kl_replies": len(drift.prompts)}
    return refused, kl, how


def _refused(
    subject: Subject,
    projections: Sequence[Projection],
    same: Mapping[int, str],
    kinds: Sequence[str],
    count: int,
    advance: Advance,
) -> dict[str, Floats]:
    """(1 + p, n) of each kind of which there are test prompts, `count` at most: which replies
    refuse, of the model as it is and under each ablation (`Asking.refusals`)."""
    test, refused = subject.test, {}
    sides = {"harmful": test.harmful, "harmless": test.harmless, "borderline": test.borderline}
    for kind in kinds:
        prompts = texts(spread(sides[kind], count))
        if prompts and projections:
            known = subject.known(same, prompts)
            refused[kind] = subject.asking.refusals(projections, prompts, known)
        advance(1)
    return refused


def _sides(subject: Subject) -> tuple[list[Side], list[str]]:
    """The harmless sides, and why others are missing; none where fewer than two are left."""
    train, missing = subject.train, []
    sides, lacking = contrast_sides(train.harmful, train.harmless, subject.seed)
    if lacking:
        missing.append(lacking)
    if not subject.of_refusal:
        sides = [side for side in sides if side.harmless is not None]
        missing.append(
            "the general prompts are harmless ones, and may or may not show the behaviour that is "
            "studied here: they are left out"
        )
    return (sides if len(sides) > 1 else []), missing


def _single(subject: Subject, side: Side) -> Tensor:
    """(d,) SD with a side's prompts as the harmless ones."""
    contrast = subject.contrast
    harmful = contrast.harmful[list(side.harmful)]
    if side.harmless is not None:
        return mean_difference(harmful, contrast.harmless[list(side.harmless)])
    return mean_difference(
        harmful, subject.represent(spread(general_prompts(), side.size), reads={})
    )


def _contrast(
    sides: Sequence[Side],
    vectors: Sequence[Tensor],
    refused: dict[str, Floats],
    kl: Sequence[float],
    missing: Sequence[str],
    seed: int,
) -> dict[str, Any]:
    """A row a side; whether they differ, and whether the first does anything, on harmful prompts.

    refused : (1 + s, n) of each kind, of the model as it is first.
    """
    if not sides:
        return {"sides": [], "missing": list(missing)}
    cosines = cosine_matrix(np.stack([vector.double().numpy() for vector in vectors]))[0]
    known = _answered(refused["harmful"])
    q, p = cochran_q(known[1:], seed=seed)
    return {
        "sides": [
            {
                "side": side.name,
                "n_harmful": len(side.harmful),
                "n_harmless": min(side.size, len(general_prompts()))
                if side.harmless is None
                else len(side.harmless),
                "cosine": round(float(cosine), 4),
                **_rates(refused, row),
                "kl": kl[row - 1],
            }
            for row, (side, cosine) in enumerate(zip(sides, cosines, strict=True), start=1)
        ],
        "base": _rates(refused, 0),
        "differ": {"q": q, "p": p, "n": known.shape[1]},
        "effect": {"p": _mcnemar(known[0], known[1])},
        "missing": list(missing),
    }


def _knobs(refused: dict[str, Floats], kl: Sequence[float], seed: int) -> dict[str, Any]:
    """What ablating SD, and each direction alone, does: rows of the model as it is, SD, cells."""
    kinds = [kind for kind in ("harmful", "borderline") if kind in refused]
    known = {kind: _answered(refused[kind])[2:] for kind in kinds}
    one_knob = None
    if len(known) > 1:
        one_knob = one_knob_test(known["harmful"], known["borderline"], seed=seed)
    rows = [{**_rates(refused, row), "kl": drift} for row, drift in enumerate((0.0, *kl))]
    return {
        "base": rows[0],
        "sd": rows[1],
        "cells": [{"rank": rank, **row} for rank, row in enumerate(rows[2:])],
        "differ": {
            kind: dict(zip(("q", "p"), cochran_q(outcomes, seed=seed), strict=True))
            | {"n": outcomes.shape[1]}
            for kind, outcomes in known.items()
        },
        "one_knob": one_knob,
    }


def _rates(refused: dict[str, Floats], row: int) -> dict[str, Any]:
    """Refusal of each kind that was asked, with its interval; missing verdicts do not count."""
    rates = {}
    for kind, name in _KINDS.items():
        if kind in refused and row < len(refused[kind]):
            given = refused[kind][row][~np.isnan(refused[kind][row])]
            rates[name] = asdict(wilson(int(given.sum()), len(given)))
    return rates


def _answered(refused: Floats) -> NDArray[np.bool_]:
    """The prompts that have a verdict in every row."""
    return refused[:, ~np.isnan(refused).any(axis=0)].astype(bool)


def _mcnemar(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return mcnemar(int((one & ~other).sum()), int((other & ~one).sum()))
