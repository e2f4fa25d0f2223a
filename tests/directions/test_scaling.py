"""Loud coordinates: what a map sees of them, and whether its directions are the planted one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from planted import planted
from somatlas import SOM, InputError
from somatlas.atlases import map_errors
from somatlas.directions.scaling import LOUD, Scaling
from somatlas.directions.som_directions import SOMDirections
from somatlas.measures.loudness import loudest
from somatlas.prompts.prompt_set import texts
from somatlas.representations.extract import residual_stream
from somatlas.runs.settings import Config
from somatlas.runs.stages.map_stage import make_method

SCALES = ["standard", "mask", "winsor"]
LOUD_ROW = 7


@pytest.fixture(scope="module")
def sides() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Representations of a model that has one loud write row, and the planted direction."""
    model = planted(1)
    write = model.lm.model.model.layers[0].mlp.down_proj.weight
    write[LOUD_ROW] += 3e5 * torch.randn(write.shape[1], generator=torch.Generator().manual_seed(3))
    found = [
        residual_stream(model.lm, texts(side), [0, 1], batch_size=64)
        for side in (model.train.harmful, model.train.harmless)
    ]
    return found[0], found[1], model.directions[0]


def cosine(made: SOMDirections, planted_direction: torch.Tensor) -> float:
    """Of the first direction."""
    vector = made.directions_.vectors[0]
    return float(torch.nn.functional.cosine_similarity(vector, planted_direction, dim=0).abs())


def fitted(sides: tuple[torch.Tensor, ...], scale: str) -> SOMDirections:
    harmful, harmless, _ = sides
    made = SOMDirections(grid=(2, 2), iterations=500, scale=scale)  # type: ignore[arg-type]
    return made.fit(harmful[:, 1], harmless[:, 1])


def test_one_loud_row_hides_the_direction_from_a_map(sides: tuple[torch.Tensor, ...]) -> None:
    (_, one) = loudest(sides[0], sides[1])
    assert one.coordinate == LOUD_ROW
    assert one.is_loud
    assert cosine(fitted(sides, "none"), sides[2]) < 0.1


@pytest.mark.parametrize("scale", SCALES)
def test_a_scaled_map_recovers_it(scale: str, sides: tuple[torch.Tensor, ...]) -> None:
    made = fitted(sides, scale)
    assert cosine(made, sides[2]) > 0.9
    harmful = sides[0][:, 1].double().numpy()
    assert (made.map_.predict(harmful) == made.map_.bmus_).all()
    gaps = np.linalg.norm(made.map_.seen(harmful) - made.map_.weights_[made.map_.bmus_], axis=1)
    assert map_errors(made.map_, harmful)["quantization"] == pytest.approx(gaps.mean())


@pytest.mark.parametrize("scale", SCALES)
def test_where_nothing_is_loud_directions_are_raw_differences(scale: str) -> None:
    rng = np.random.default_rng(0)
    harmful, harmless = rng.uniform(1, 2, size=(2, 60, 6))
    made = SOMDirections(grid=(1, 2), iterations=200, scale=scale).fit(harmful, harmless)  # type: ignore[arg-type]
    for neuron, vector in zip(made.directions_.neurons, made.directions_.vectors, strict=True):
        field = harmful[made.map_.bmus_ == int(neuron)]
        expected = field.mean(axis=0) - harmless.mean(axis=0)
        np.testing.assert_allclose(vector.numpy(), expected, rtol=1e-5)


def test_what_is_loud_and_what_is_left_of_it() -> None:
    X = np.random.default_rng(1).normal(size=(200, 9)) * np.array([1.0] * 8 + [1000.0])
    scalings = {kind: Scaling.of(kind, X) for kind in ("none", *SCALES)}  # type: ignore[arg-type]
    assert scalings["mask"].loud.tolist() == [False] * 8 + [True]
    assert scalings["none"].seen(X) is X
    np.testing.assert_allclose(scalings["standard"].seen(X).std(axis=0), 1)
    typical = np.median(X.std(axis=0))
    spreads = {kind: one.quieted(X)[:, 8].std() / typical for kind, one in scalings.items()}
    assert spreads["standard"] == pytest.approx(1)
    assert spreads["mask"] == 0
    assert spreads["winsor"] <= LOUD < spreads["none"]


@pytest.mark.parametrize("scale", SCALES)
def test_a_map_is_read_as_it_was_written(scale: str, tmp_path: Path) -> None:
    X = np.random.default_rng(2).normal(size=(40, 5)) * np.array([1, 1, 1, 1, 500.0])
    som = SOM(grid=(2, 2), iterations=200, scale=scale).fit(X)  # type: ignore[arg-type]
    som.save(tmp_path / "map.safetensors")
    read = SOM.load(tmp_path / "map.safetensors")
    assert read.get_params() == som.get_params()
    np.testing.assert_array_equal(read.transform(X), som.transform(X))


def test_a_run_hands_the_setting_to_its_map_and_to_nothing_else() -> None:
    assert Config.stage_of("scale") == "map"
    assert make_method(Config(model="m", scale="mask")).get_params()["scale"] == "mask"
    with pytest.raises(InputError, match="method 'kmeans' makes none: leave out --scale"):
        Config.merged({"model": "m", "method": "kmeans", "scale": "mask"})
    with pytest.raises(InputError, match="scale"):
        Config.merged({"model": "m", "scale": "loud"})
    with pytest.raises(InputError, match="scale must be"):
        SOM(scale="loud").fit(np.eye(20))  # type: ignore[arg-type]
