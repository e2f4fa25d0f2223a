"""The map of the harmful representations, and the directions from it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from somatlas.atlases import map_errors
from somatlas.directions.methods import METHODS, Contrast
from somatlas.runs.settings import Config
from somatlas.directions.direction_set import DirectionSet, mean_difference
from somatlas.files import read_json, read_tensors, write_json, write_tensors
from somatlas.report.figures.map_figures import map_figure, save_figure
from somatlas.representations.store import RepresentationStore
from somatlas.runs.folder import Run, chosen_layer
from somatlas.directions.som import SOM


def map_stage(run: Run) -> None:
    """Train the map and make directions of its neurons, or by another method; SD beside them."""
    run.needs("represent")
    config = run.config
    layer = chosen_layer(run)
    store = RepresentationStore.open(run.path("representations"))
    harmful = store.at("positive", layer)
    harmless_mean = store.mean_at("negative", layer)
    single = DirectionSet.single(mean_difference(harmful, harmless_mean[None]), len(harmful))
    metadata = {"model": config.model, "layer": str(layer), "method": config.method}
    single.save(run.path("single_direction.safetensors"), {**metadata, "method": "sd"})
    if config.method != "som":
        directions = METHODS[config.method](contrast_of(run, store, layer, harmful))
        directions.save(run.path("directions.safetensors"), metadata)
        return
    som = make_map(config).fit(harmful)
    directions = DirectionSet.from_som(som, harmless_mean)
    write_tensors(
        run.path("map.safetensors"),
        {
            "weights": torch.from_numpy(som.weights_),
            "hits": torch.from_numpy(som.hits_),
            "bmus": torch.from_numpy(som.bmus_),
            "coordinates": torch.from_numpy(som.coordinates()),
            "u_matrix": torch.from_numpy(som.u_matrix()),
        },
        {**metadata, "grid": "x".join(map(str, config.grid)), "topology": config.topology},
    )
    write_json(run.path("map.json"), map_errors(som, harmful.double().numpy(), config.seed))
    directions.save(run.path("directions.safetensors"), metadata)
    draw_map(run, ())


def make_map(config: Config, seed: int | None = None) -> SOM:
    """The configured map, not trained yet: of the configured draw, or of the seed given."""
    return SOM(
        grid=config.grid,
        topology=config.topology,
        sigma=config.sigma,
        learning_rate=config.learning_rate,
        iterations=config.iterations,
        seed=config.map_seed if seed is None else seed,
    )


def contrast_of(run: Run, store: RepresentationStore, layer: int, harmful: Tensor) -> Contrast:
    """What the methods that the map is compared with may use."""
    differences = (store.means("positive") - store.means("negative")).float()
    return Contrast(
        harmful=harmful,
        harmless=store.at("negative", layer),
        categories=[prompt.category for prompt in run.prompts.positive["train"]],
        single=dict(zip(store.layers, differences, strict=True)),
        layer=layer,
        count=run.config.candidates,
        seed=run.config.map_seed,
    )


def draw_map(run: Run, chosen: Sequence[int]) -> None:
    """map.png, with the chosen ranks outlined; nothing where another method made them."""
    if run.config.method != "som":
        return
    tensors, metadata = read_tensors(run.path("map.safetensors"))
    directions = DirectionSet.load(run.path("directions.safetensors"))
    ordered = read_json(run.path("map.json"))["ordered"]
    figure = map_figure(
        tensors["coordinates"].numpy(),
        tensors["u_matrix"].numpy() if ordered else None,
        tensors["hits"].numpy(),
        directions.neurons.numpy(),
        topology=metadata["topology"],
        chosen=chosen,
        title=f"{run.folder.parent.name}, layer {metadata['layer']}",
    )
    save_figure(figure, run.path("map.png"))
