"""What the map says of the model: the numbers behind the report's figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from somatlas.atlases.atlas import SECTIONS, assembled
from somatlas.atlases.subject import Mapped, Subject
from somatlas.directions.contract import Contrast
from somatlas.directions.direction_set import DirectionSet
from somatlas.directions.methods import METHODS
from somatlas.directions.som import SOM
from somatlas.evaluation.effects import KeptDrift
from somatlas.evaluation.verdicts import VerdictRow
from somatlas.fleet import Work, deal
from somatlas.models.memory import give_back
from somatlas.progress import Advance
from somatlas.runs.answer_check import check_record
from somatlas.runs.contents import Contents
from somatlas.runs.folder import Run, chosen_layer
from somatlas.runs.map_file import read_map_errors
from somatlas.runs.stages.ablate_stage import chosen_directions, kept_drift
from somatlas.runs.stages.map_stage import contrast_of, make_method
from somatlas.runs.stages.represent_stage import token_read
from somatlas.runs.stages.search_stage import asking


def atlas_stage(run: Run) -> None:
    """Write atlas.json: neurons, plane, geometry over k, stability, controls."""
    run.needs("judge")
    contents = Contents(run.folder)
    layer, (ranks, chosen) = chosen_layer(run), chosen_directions(run)
    store = contents.store
    of = AtlasOf(
        layer,
        contrast_of(run, store, layer, store.at("positive", layer)),
        contents.directions,
        contents.single.vectors[0],
        chosen,
        ranks,
        _mapped(run),
        contents.layers.refusal_tokens["ids"] if run.is_done("layers") else [],
        [v for v in contents.verdicts if (v.kind, v.condition) == ("borderline", "base")],
        kept_drift(run),
        check_record(run),
        _replies(run),
    )
    pieces = deal(list(SECTIONS), 1)
    sections = [one for (one,) in run.fleet.prepared(section_work, of).each(pieces)]
    assembled(layer, sections).write(run.folder)


@dataclass(frozen=True)
class AtlasOf:
    """What a run's atlas is made of beside its settings, prompts and model: see `Subject`."""

    layer: int
    contrast: Contrast
    directions: DirectionSet
    single: Tensor
    chosen: Tensor
    ranks: list[int]
    mapped: Mapped | None
    refusal_tokens: list[int]
    borderline: list[VerdictRow]
    drift: KeptDrift
    check: Mapping[str, Any] | None
    replies: Mapping[tuple[str, str], str]


def section_work(run: Run, of: AtlasOf) -> Work[str, dict[str, Any]]:
    """Sections of the atlas."""
    config = run.config
    run.use_check(of.check)
    subject = Subject(
        run.lm,
        of.layer,
        of.contrast,
        run.prompts.train,
        run.prompts.test,
        of.directions,
        of.single,
        config.method,
        partial(make_method, config),
        of.chosen,
        asking(run),
        of.drift.on(run.lm, config.batch_size),
        of.borderline,
        ranks=of.ranks,
        own=config.directions is None,
        candidates=config.candidates,
        k=config.k,
        mode=config.mode,
        mapped=of.mapped,
        refusal_tokens=of.refusal_tokens,
        epsilon=config.refusal_epsilon,
        of_refusal=config.behaviour is None,
        seed=config.seed,
        reads=partial(token_read, run),
        replies=of.replies,
    )

    def work(names: Sequence[str], _advance: Advance) -> list[dict[str, Any]]:
        found = [SECTIONS[name](subject) for name in names]
        give_back()
        return found

    return work


def _replies(run: Run) -> dict[tuple[str, str], str]:
    """Replies to test prompts by condition and prompt, where the atlas would ask for the same: of
    this model, greedy, under the run's own system prompt, of as many tokens."""
    c = run.config
    if c.temperature > 0 or c.test_systems is not None or c.search_tokens is not None:
        return {}
    said = Contents(run.folder).completions
    own = [name for name in ("base", "sd", "md") if name not in (c.reply_models or {})]
    return {(name, one.prompt): one.reply for name in own for one in said[name]}


def _mapped(run: Run) -> Mapped | None:
    if not METHODS.get(run.config.method).makes_map:
        return None
    return Mapped(SOM.load(run.path("map.safetensors")), read_map_errors(run.folder))
