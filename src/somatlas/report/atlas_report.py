"""The atlas of a model from Python: what is measured, and the page of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

import somatlas
from somatlas.arguments import check_kind, check_whole, path_of
from somatlas.atlases import map_errors
from somatlas.atlases.atlas import atlas_of
from somatlas.atlases.record import Atlas
from somatlas.atlases.subject import Mapped, Subject
from somatlas.directions.contract import Context, Contrast, DirectionMethod
from somatlas.directions.direction_set import DirectionSet
from somatlas.directions.methods import make_method
from somatlas.errors import InputError
from somatlas.evaluation.effects import KeptDrift
from somatlas.evaluation.evaluate import Result
from somatlas.files import write_text
from somatlas.models.language_model import MODEL, LanguageModel
from somatlas.report.page import Head, page
from somatlas.report.read import Facts
from somatlas.representations.sides import Representations
from somatlas.runs.map_file import drawn_map
from somatlas.searches.trials import Asking


@dataclass(frozen=True)
class AtlasReport:
    """An atlas with all that its page shows. record : the numbers (`Atlas`)."""

    record: Atlas
    facts: Facts
    head: Head

    def save(self, path: str | Path) -> Path:
        """Write the page, one HTML file that works offline; returns its path."""
        place = path_of("path", path)
        write_text(place, page(self.facts, self.head))
        return place


def atlas(
    lm: LanguageModel,
    directions: DirectionSet,
    representations: Representations,
    result: Result,
    *,
    condition: str = "md",
    candidates: int = 16,
    lanes: int = 4,
) -> AtlasReport:
    """What directions say of a model: neurons, geometry over k, stability, controls.

    directions : of one layer of the representations, as a method's `directions_`. result : of a
    test with the same model; condition : the one whose directions are looked into, the chosen ones
    first. candidates : the ranks whose effect alone is measured. lanes : ablations side by side.

    Raises InputError where the directions are of no layer of the representations, or the result
    has no such condition, or one that ablates with another strength than 1.

        atlas(lm, directions, representations, result).save("report.html")
    """
    check_kind("lm", lm, LanguageModel, MODEL)
    check_kind("directions", directions, DirectionSet, "a DirectionSet, as a method's directions_")
    check_kind("representations", representations, Representations, "what represent returned")
    check_kind("result", result, Result, "what evaluate returned")
    check_kind("condition", condition, str, "the name of a condition")
    check_whole("candidates", candidates, 1)
    check_whole("lanes", lanes, 1)
    projection = result.projections.get(condition)
    if projection is None:
        edits = ", ".join(name for name, edit in result.projections.items() if edit is not None)
        raise InputError(f"the result has no edit {condition!r}: name one of {edits}")
    if projection.strength != 1:
        raise InputError(
            f"{condition!r} ablates with strength {projection.strength:g}: an atlas is of "
            "directions that are ablated whole"
        )
    place = _place(directions, representations)
    layer = representations.layers[place]
    differences = torch.from_numpy(representations.mean_differences())
    context = Context(
        [prompt.category for prompt in representations.prompts.harmful],
        dict(zip(representations.layers, differences, strict=True)),
        layer,
    )
    harmful, harmless = (
        np.ascontiguousarray(side[:, place])
        for side in (representations.harmful, representations.harmless)
    )
    contrast = Contrast(torch.from_numpy(harmful), torch.from_numpy(harmless), context)
    mapped = None
    if directions.known_map is not None:
        errors = map_errors(directions.known_map, harmful.astype(np.float64), result.seed)
        mapped = Mapped(directions.known_map, errors)
    method = directions.origin.method or ("som" if mapped else "sd")

    def methods(name: str) -> DirectionMethod:
        params = mapped.som.get_params() if mapped and name == "som" else {}
        return make_method(name, {"count": candidates, "seed": result.seed, **params})

    base, judge = result.completions["base"], result.judges[0]
    ranks = _ranks(projection.vectors, directions)
    subject = Subject(
        lm,
        layer,
        contrast,
        representations.prompts,
        result.prompts,
        directions,
        directions.single.vectors[0],
        method,
        methods,
        projection.vectors.float(),
        Asking.by(judge, lm, tokens=result.tokens, lanes=lanes, batch_size=result.batch_size),
        KeptDrift.of(base).on(lm, result.batch_size),
        [v for v in result.verdicts if (v.kind, v.condition) == ("borderline", "base")],
        ranks=ranks if ranks is not None else range(len(projection.vectors)),
        own=ranks is not None,
        candidates=candidates,
        k=len(projection.vectors),
        mode=projection.mode,
        mapped=mapped,
        seed=result.seed,
    )
    record = atlas_of(subject)
    facts = Facts(
        {"method": method, "directions": None if ranks is not None else "given"},
        map=drawn_map(mapped.som, directions, dict(mapped.errors)) if mapped else None,
        effects=result.effects,
        evaluation=result.evaluation.model_copy(
            update={"layer": layer, "ranks": list(subject.ranks)}
        ),
        atlas=record,
        condition=condition,
    )
    head = Head(
        f"How {lm.name} encodes refusal",
        f"somatlas {somatlas.__version__} from Python, seed {result.seed}, method {method}",
        "Made from Python; `somatlas run` makes a folder that holds all that is needed to repeat "
        "a run.",
        impossible=[f"{what}: {why}" for what, why in record.missing.items()],
    )
    return AtlasReport(record, facts, head)


def _place(directions: DirectionSet, representations: Representations) -> int:
    """The place of the layer whose mean difference is the directions' own."""
    own = directions.single.vectors[0].double().numpy()
    gaps = np.linalg.norm(representations.mean_differences() - own, axis=1)
    place = int(gaps.argmin())
    if gaps[place] > 1e-3 * np.linalg.norm(own):
        raise InputError(
            "the directions are of no layer of these representations: their mean difference is "
            "another at every layer"
        )
    return place


def _ranks(vectors: torch.Tensor, directions: DirectionSet) -> list[int] | None:
    """The ranks of the directions that vectors are, None where one is none of them."""
    found = []
    for vector in vectors.float():
        same = (directions.vectors == vector).all(dim=1).nonzero().flatten().tolist()
        if not same:
            return None
        found.append(int(same[0]))
    return found
