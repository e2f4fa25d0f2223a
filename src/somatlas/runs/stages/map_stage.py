"""The map of the harmful representations, and the directions from it."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from somatlas.atlases import map_errors
from somatlas.directions.contract import Context, Contrast, DirectionMethod
from somatlas.directions.direction_set import DirectionSet, Origin, mean_difference
from somatlas.directions.methods import METHODS
from somatlas.directions.methods import make_method as build_method
from somatlas.files import write_json
from somatlas.representations.store import RepresentationStore
from somatlas.runs.folder import Run, chosen_layer
from somatlas.runs.settings import Config


def map_stage(run: Run) -> None:
    """Make directions by the run's method, and write the map where it makes one; SD beside them."""
    run.needs("represent")
    config = run.config
    layer = chosen_layer(run)
    store = RepresentationStore.open(run.path("representations"))
    harmful = store.at("positive", layer)
    harmless_mean = store.mean_at("negative", layer)[None]
    method = make_method(config)
    if method.needs_mean_only:
        made = method.fit(harmful, harmless_mean)
    else:
        contrast = contrast_of(run, store, layer, harmful)
        made = method.fit(contrast.harmful, contrast.harmless, context=contrast.context)
    single = DirectionSet.of_mean_difference(
        mean_difference(harmful, harmless_mean), len(harmful), Origin("sd", config.model, layer)
    )
    single.save(run.path("single_direction.safetensors"))
    origin = Origin(config.method, config.model, layer)
    if method.makes_map:
        made.map_.save(run.path("map.safetensors"), origin.metadata)
        errors = map_errors(made.map_, harmful.double().numpy(), config.seed)
        write_json(run.path("map.json"), errors)
    replace(made.directions_, origin=origin).save(run.path("directions.safetensors"))


def make_method(config: Config, name: str | None = None) -> DirectionMethod:
    """The configured method, or another one, not fitted: of the configured draw."""
    cls = METHODS.get(name or config.method)
    run = {setting: getattr(config, setting) for setting in cls.run_settings}
    own = config.method_settings if cls.name == config.method else None
    return build_method(cls.name, {"count": config.candidates, "seed": config.map_seed, **run}, own)


def contrast_of(run: Run, store: RepresentationStore, layer: int, harmful: Tensor) -> Contrast:
    """What the methods may use."""
    differences = store.mean_differences()
    context = Context(
        categories=[prompt.category for prompt in run.prompts.positive["train"]],
        differences=dict(zip(store.layers, differences, strict=True)),
        layer=layer,
    )
    return Contrast(harmful, store.at("negative", layer), context)
