"""What the map says of the model: the numbers behind the report's figures."""

from __future__ import annotations

from functools import partial

from somatlas.atlases.atlas import atlas_of
from somatlas.atlases.subject import Mapped, Subject
from somatlas.directions.methods import METHODS
from somatlas.directions.som import SOM
from somatlas.files import read_json
from somatlas.runs.contents import Contents
from somatlas.runs.folder import Run, chosen_layer
from somatlas.runs.stages.ablate_stage import chosen_directions, drift_of
from somatlas.runs.stages.map_stage import contrast_of, make_method
from somatlas.runs.stages.represent_stage import token_read
from somatlas.runs.stages.search_stage import asking


def atlas_stage(run: Run) -> None:
    """Write atlas.json: neurons, plane, geometry over k, stability, controls."""
    run.needs("judge")
    config, contents = run.config, Contents(run.folder)
    layer, (ranks, chosen) = chosen_layer(run), chosen_directions(run)
    store = contents.store
    subject = Subject(
        run.lm,
        layer,
        contrast_of(run, store, layer, store.at("positive", layer)),
        run.prompts.train,
        run.prompts.test,
        contents.directions,
        contents.single.vectors[0],
        config.method,
        partial(make_method, config),
        chosen,
        asking(run),
        drift_of(run),
        [v for v in contents.verdicts if (v.kind, v.condition) == ("borderline", "base")],
        ranks=ranks,
        own=config.directions is None,
        candidates=config.candidates,
        k=config.k,
        mode=config.mode,
        mapped=_mapped(run),
        refusal_tokens=contents.layers.refusal_tokens["ids"] if run.is_done("layers") else (),
        epsilon=config.refusal_epsilon,
        of_refusal=config.behaviour is None,
        seed=config.seed,
        reads=partial(token_read, run),
    )
    atlas_of(subject).write(run.folder)


def _mapped(run: Run) -> Mapped | None:
    if not METHODS.get(run.config.method).makes_map:
        return None
    return Mapped(SOM.load(run.path("map.safetensors")), read_json(run.path("map.json")))
