"""The atlas of a model: the numbers behind the report's figures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from somatlas.ablation import Projection
from somatlas.atlases.controls import contrast, knobs
from somatlas.atlases.described import described
from somatlas.atlases.over_k import geometry_at, in_one_frame, relations
from somatlas.atlases.plane import plane
from somatlas.atlases.record import Atlas
from somatlas.atlases.steadiness import steadiness
from somatlas.atlases.subject import Subject
from somatlas.errors import InputError
from somatlas.numerics.geometry import cosine_matrix, unit_rows
from somatlas.progress import progress
from somatlas.prompts.prompt_set import spread, texts

_ANSWERED = (32, 16)  # harmful and harmless test prompts that are answered at every step
_CLOUD = 100  # test prompts a side whose geometry is measured there
_STEPS = 5  # directions ablated one after another, at most, or k where that is more


def atlas_of(subject: Subject) -> Atlas:
    """Neurons, plane, geometry over k, stability and controls.

    What cannot be had of so few prompts is named in `missing`, for its reason.
    """
    return assembled(subject.layer, [make(subject) for make in SECTIONS.values()])


def assembled(layer: int, sections: Iterable[Mapping[str, Any]]) -> Atlas:
    """The atlas of what its sections give."""
    return Atlas(layer=layer, **{name: value for one in sections for name, value in one.items()})


def _of_steps(subject: Subject) -> dict[str, Any]:
    steps = _steps(subject)
    return {"steps": steps, "relations": relations(steps)}


def _stability(subject: Subject) -> dict[str, Any]:
    try:
        return {"stability": steadiness(subject)}
    except InputError as error:  # as where a sample of few prompts is smaller than the map
        return {"stability": None, "missing": {"stability": str(error)}}


def _directions(subject: Subject) -> dict[str, Any]:
    """The directions as they lie, and the map where there is one."""
    vectors = subject.directions.vectors.double().numpy()
    single = subject.single.double().numpy()
    axes = subject.methods(subject.method).makes_axes  # without length: drawn as long as SD
    drawn = unit_rows(vectors) * np.linalg.norm(single) if axes else vectors
    return {
        "cosines": np.round(cosine_matrix(vectors), 4).tolist(),
        "cosines_with_single": np.round(cosine_matrix([*vectors, single])[-1, :-1], 4).tolist(),
        "plane": {
            **plane(subject.harmful, subject.harmless, drawn, single),
            "to_scale": not axes,
        },
        **({} if subject.mapped is None else described(subject, subject.mapped)),
    }


def _steps(subject: Subject) -> list[dict[str, Any]]:
    """Ablate 0, 1, ... directions: the chosen ranks first, then the others in order."""
    count = max(_STEPS, len(subject.ranks))
    every = subject.chosen_first[:count]
    names = [*subject.ranks, *subject.rest][:count]
    sides = subject.test.harmful, subject.test.harmless
    harmful, harmless = (texts(spread(side, _CLOUD)) for side in sides)
    answered = [texts(spread(side, n)) for side, n in zip(sides, _ANSWERED, strict=True)]
    projections = [Projection(every[:k], subject.mode) for k in range(1, len(every) + 1)]
    both, both_shares, steps, clouds = [*harmful, *harmless], [], [], []
    with progress("geometry", len(answered) + 1 + len(every) + 1) as advance:
        for side in answered:
            known = subject.known({0: "base", len(subject.ranks): "md"}, side)
            both_shares.append(subject.asking.shares(projections, side, known))
            advance(1)
        reads = subject.reads(both)
        advance(1)
        shares, harmless_shares = both_shares
        for k, projection in enumerate([None, *projections]):
            cloud = subject.represent(both, projection, reads).double().numpy()
            step = {
                "k": k,
                "ranks": names[:k],
                "n": len(answered[0]),
                "n_harmless": len(answered[1]),
                **shares[k],
                "harmless_answered": harmless_shares[k]["asr"],
                "kl": 0.0 if projection is None else subject.drift.under(projection),
            }
            clouds.append((cloud[: len(harmful)], cloud[len(harmful) :]))
            steps.append({**step, **geometry_at(*clouds[-1])})
            advance(1)
    return [step | places for step, places in zip(steps, in_one_frame(clouds), strict=True)]


# What makes which fields of the record, each by itself; those that take longest first.
SECTIONS: Mapping[str, Callable[[Subject], dict[str, Any]]] = {
    "knobs": knobs,
    "steps": _of_steps,
    "stability": _stability,
    "contrast": contrast,
    "directions": _directions,
}
