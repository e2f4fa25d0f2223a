"""The figures: each from a run's folder and from plain arrays, and what they are in grey."""

from __future__ import annotations

import csv
import html
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from scipy.spatial.distance import pdist, squareform

from somatlas import SOM, DirectionSet, InputError
from somatlas.atlases import plane, space, stability
from somatlas.numerics.geometry import cosine_matrix
from somatlas.report import (
    cosine_figure,
    front_figure,
    grid_figure,
    layers_figure,
    map_figure,
    plane_figure,
    run_figures,
    scaling_figure,
    stability_figure,
    steps_figure,
)
from somatlas.report.figures.colours import COSINES, U_MATRIX, ink_on
from somatlas.report.figures.control_figures import knobs_figure
from somatlas.report.figures.map_figures import VOID
from somatlas.report.page import write_report
from somatlas.report.prose import map_text
from somatlas.runs.folder import run_at

RNG = np.random.default_rng(0)
ALWAYS = {
    "cosines",
    "cosines-map",
    "grid",
    "knobs",
    "layers",
    "map",
    "plane",
    "scaling",
    "stability",
    "steps",
}


def drawn(figure: Figure) -> bool:
    """Whether it renders to more than one colour."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=40)
    colours = Image.open(buffer).convert("RGB").getcolors(1 << 24)
    return colours is not None and len(colours) > 1


def labels(figure: Figure) -> list[str]:
    return [text for axes in figure.axes for text in (axes.get_xlabel(), axes.get_ylabel())]


def with_front(folder: Path) -> None:
    """Give a finished run's trials a KL, as a search for little drift measures it."""
    path = folder / "search.json"
    search = json.loads(path.read_text())
    for i, trial in enumerate(search["trials"]):
        trial |= {"kl": 0.1 * (i + 1), "asr": 0.2 * (i + 1), "pruned": False}
    search["front"] = [{n: t[n] for n in ("ranks", "asr", "kl")} for t in search["trials"][:3]]
    search["val"] |= {"kl": 0.2, "asr": 0.4}
    search["ranks"] = search["trials"][1]["ranks"]
    search["max_kl"] = {"limit": 0.25, "kept": 2}
    path.write_text(json.dumps(search))


def test_every_figure_of_a_run_is_drawn_with_its_numbers(whole: Path) -> None:
    assert run_figures(whole).keys() == ALWAYS
    with_front(whole)
    found = run_figures(str(whole))
    assert found.keys() == ALWAYS | {"front"}
    for name, figure in found.items():
        assert figure.name == name
        assert drawn(figure.draw()), name
        rows = list(csv.reader(io.StringIO(figure.csv())))
        assert len(rows) == len(figure.rows()) > 1
        assert len({len(row) for row in rows}) == 1, name
    marked = [row for row in found["front"].rows()[1:] if row[-1]]
    assert len(marked) == 1
    assert sum(row[-2] for row in found["front"].rows()[1:]) == 3


def test_a_run_without_an_atlas_has_its_map(whole: Path) -> None:
    (whole / "atlas.json").unlink()
    found = run_figures(whole)
    assert found.keys() == {"layers", "map"}
    assert found["map"].rows()[0] == ["neuron", "rank", "hits", "u_matrix"]


def test_a_folder_that_is_no_run_has_no_figures(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is no run folder: it has no config\.toml"):
        run_figures(tmp_path)


def as_lists(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value


@pytest.mark.parametrize("given", [np.asarray, as_lists], ids=["arrays", "lists"])
def test_every_figure_is_drawn_from_plain_arrays(given: Any) -> None:
    harmful, harmless = RNG.normal(size=(40, 5)) + 1, RNG.normal(size=(30, 5))
    som = SOM(grid=(2, 3), sigma=0.5, learning_rate=0.1, iterations=200, seed=0).fit(harmful)
    directions = som.weights_ - harmless.mean(axis=0)
    single = harmful.mean(axis=0) - harmless.mean(axis=0)
    among = space(harmful, harmless, som.weights_, som.edges())
    k, steps = np.arange(3), RNG.random(3)
    where = RNG.random((6, 2))
    ranks = given(np.array([0, 2]))
    found = {
        "som": stability(lambda rows, seed: (harmful[rows[:2]], som.bmus_), 40, k=2, repeats=3),
        "sd": stability(lambda rows, seed: (harmful[rows].mean(0)[None], None), 40, k=1, repeats=3),
    }
    figures = {
        "map": map_figure(
            *map(given, (som.coordinates(), som.u_matrix(), som.hits_, np.arange(6))), chosen=ranks
        ),
        "layers": layers_figure(given(k), given(steps), given(steps), 1),
        "front": front_figure(given(where), given(where[:2]), given(where[0]), 0.5),
        "steps": steps_figure(
            given(k),
            ratio=[None, 0.5, 0.7],
            **dict.fromkeys(
                ("asr", "kl", "compactness", "harmless_compactness", "distance"), given(steps)
            ),
        ),
        "scaling": scaling_figure(
            given(k),
            given(RNG.random((3, 9, 3))),
            given(RNG.random((3, 7, 3))),
            **dict.fromkeys(
                ("stress", "compactness", "harmless_compactness", "distance"), given(steps)
            ),
        ),
        "grid": grid_figure(
            *(given(np.array(among[n])) for n in ("harmful", "harmless", "neurons", "edges")),
            ranks=[0, None, 2, 3, 1, 4],
            chosen=ranks,
            variance=given(np.array(among["variance"])),
        ),
        "plane": plane_figure(plane(harmful, harmless, directions, single), ranks, {"sd": "ASR"}),
        "cosines": cosine_figure(given(cosine_matrix(directions)), ranks),
        "stability": stability_figure(found, ["sd"]),
        "knobs": knobs_figure(given(where), given(where[0]), given(where[1]), ranks),
    }
    for name, figure in figures.items():
        assert drawn(figure), name
    for name, words in {
        "front": ("KL on harmless replies, nats a token", "ASR on val, %"),
        "steps": ("ASR, %", "KL on harmless replies,\nnats a token"),
    }.items():
        assert set(words) <= set(labels(figures[name]))
    for name in ("scaling", "grid"):  # one scale on every axis, and one frame in every panel
        frames = [np.array([a.get_xlim(), a.get_ylim(), a.get_zlim()]) for a in figures[name].axes]
        for axes, frame in zip(figures[name].axes, frames, strict=True):
            np.testing.assert_array_equal(frame, frames[0])
            scale = np.ptp(frame, axis=1) / axes.get_box_aspect()
            np.testing.assert_allclose(scale, scale[0])
            assert all(len(axis.get_ticklocs()) > 1 for axis in (axes.xaxis, axes.zaxis))
    assert [round(axes.get_xlim()[1]) for axes in figures["stability"].axes] == [1, 1, 94, 1]


def words_in(figure: Figure) -> str:
    return " ".join(text.get_text() for text in figure.findobj(Text))


def test_arrows_end_at_the_neurons_and_the_corner_says_what_is_given() -> None:
    harmful, harmless = RNG.normal(size=(40, 5)) + 1, RNG.normal(size=(30, 5))
    neurons, centre = harmful[:3], harmless.mean(axis=0)
    content = plane(harmful, harmless, neurons - centre, harmful.mean(axis=0) - centre)
    figure = plane_figure(content, [1], {"sd": "ASR 5 %", "md": "ASR 80 %"})
    single, several = figure.axes
    ends = [
        [text.xy for text in axes.texts if getattr(text, "arrow_patch", None)]  # type: ignore[attr-defined]
        for axes in (single, several)
    ]
    np.testing.assert_allclose(ends[0], [content["centroids"]["harmful"]], atol=1e-3)
    np.testing.assert_allclose(ends[1], [*content["harmful"][:3], content["single"]], atol=1e-3)
    for axes, words in ((single, "ASR 5 %"), (several, "ASR 80 %")):
        assert words in [text.get_text() for text in axes.texts]


def test_every_panel_of_the_scaling_has_its_spreads_and_distance() -> None:
    numbers = {
        "stress": [0.1, 0.2],
        "compactness": [20.8, 17.1],
        "harmless_compactness": [20.7, 17.6],
        "distance": [9.5, 2.5],
    }
    figure = scaling_figure([0, 3], RNG.random((2, 9, 3)), RNG.random((2, 7, 3)), **numbers)
    for axes, expected in zip(
        figure.axes,
        ("k = 0   (stress 0.10)\nHL σ 20.7   HF σ 20.8   Δμ 9.5", "HL σ 17.6   HF σ 17.1   Δμ 2.5"),
        strict=True,
    ):
        assert expected in axes.get_title()


def test_a_map_without_order_has_no_shade_and_says_why(whole: Path) -> None:
    errors = json.loads((whole / "map.json").read_text())
    assert "chance" in errors
    found = {}
    for ordered in (True, False):
        (whole / "map.json").write_text(json.dumps({**errors, "ordered": ordered}))
        found[ordered] = run_figures(whole)
    shaded, plain = (found[ordered]["map"] for ordered in (True, False))
    assert "U-matrix as colour" in shaded.caption
    assert VOID in plain.caption
    one, other = shaded.draw(), plain.draw()
    assert "mean distance to neighbours" in words_in(one)
    assert VOID not in words_in(one)
    assert "mean distance to neighbours" not in words_in(other)
    assert VOID in words_in(other)
    faces = [{patch.get_facecolor() for patch in figure.axes[0].patches} for figure in (one, other)]
    assert len(faces[0]) > 1
    assert faces[1] == {(1.0, 1.0, 1.0, 1.0)}
    assert VOID in found[False]["cosines-map"].caption
    assert VOID not in found[True]["cosines-map"].caption


@pytest.mark.parametrize("ordered", [True, False])
def test_the_page_follows_the_maps_chance_level_and_names_how_many_tokens(
    whole: Path, ordered: bool
) -> None:
    errors = json.loads((whole / "map.json").read_text()) | {"ordered": ordered}
    (whole / "map.json").write_text(json.dumps(errors))
    page = html.unescape(write_report(run_at(whole)).read_text())
    assert map_text(errors) in page
    assert ("void" in map_text(errors)) is not ordered
    assert ("Its place means nothing here." in page) is not ordered
    shades = set(re.findall(r"rgba\(var\(--cell\), ([\d.]+)\)", page))
    assert (len(shades) > 1) is ordered
    assert "KL on harmless, first 16 tokens, nats a token" in page
    assert "KL on harmless, first 32 tokens, nats a token" in page
    assert "so no interval is given" in page or "Too few steps" in page or "too alike" in page


def test_the_maps_sentence_says_what_was_measured() -> None:
    chance = {"mean": 0.73, "low": 0.49, "high": 0.91}
    errors = {
        "quantization": 16.0,
        "topographic": 0.15,
        "rank_correlation": 0.63,
        "chance": {
            "permutations": 1000,
            "topographic": chance,
            "rank_correlation": {"mean": 0.0, "low": -0.22, "high": 0.23},
        },
        "ordered": True,
    }
    for words in ("15%", "73% [49%, 91%]", "0.63", "[-0.22, 0.23]", "neighbours in space."):
        assert words in map_text(errors)
    assert "void" in map_text({**errors, "ordered": False})
    assert "single neuron" in map_text({**errors, "chance": None, "rank_correlation": None})
    assert "not measured" in map_text(None)


def test_the_grids_lines_are_drawn_where_there_are_any() -> None:
    neurons = RNG.random((4, 3))
    for edges in ([], [[0, 1], [1, 3]]):
        figure = grid_figure(RNG.random((9, 3)), RNG.random((5, 3)), neurons, edges)
        lines = [np.array(line.get_data_3d()).T for line in figure.axes[0].get_lines()]
        np.testing.assert_array_equal(
            np.reshape(lines, (-1, 2, 3)), neurons[np.reshape(edges, (-1, 2)).astype(int)]
        )


def test_cosines_have_sd_and_stand_in_either_order(whole: Path) -> None:
    found, atlas = run_figures(whole), json.loads((whole / "atlas.json").read_text())
    directions, single = (
        DirectionSet.load(whole / f"{name}.safetensors")
        for name in ("directions", "single_direction")
    )
    ranked = list(range(len(directions)))
    on_map = np.argsort(directions.neurons.numpy()).tolist()
    assert on_map != ranked
    for name, order in (("cosines", ranked), ("cosines-map", on_map)):
        header, *rows = found[name].rows()
        assert list(header) == ["rank", *map(str, order), "SD"]
        vectors = np.concatenate([directions.vectors[order], single.vectors])
        expected = 1 - squareform(pdist(vectors, "cosine"))
        np.testing.assert_allclose([row[1:] for row in rows], expected, atol=1e-3)
    assert len(atlas["cosines"]) == len(ranked)


def grey(colours: np.ndarray) -> np.ndarray:
    """What Pillow makes of colours (n, 4) for a grey print, 0 to 255."""
    pixels = Image.fromarray((255 * colours[None, :, :3]).round().astype(np.uint8), "RGB")
    return np.asarray(pixels.convert("L"), dtype=float)[0]


@pytest.mark.parametrize("colours", [COSINES, U_MATRIX], ids=["cosines", "u-matrix"])
def test_printed_in_grey_more_is_always_darker(colours: Any) -> None:
    levels = grey(colours(np.linspace(0, 1, 33)))
    assert (np.diff(levels) < 0).all()
    assert levels[0] - levels[-1] > 120


def test_numbers_on_any_cosine_contrast_with_their_cell() -> None:
    for colour in COSINES(np.linspace(0, 1, 101)):
        linear = np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
        luminance = float(linear[:3] @ (0.2126, 0.7152, 0.0722))
        ink = {"black": 0.0, "white": 1.0}[ink_on(colour)]
        high, low = max(ink, luminance), min(ink, luminance)
        assert (high + 0.05) / (low + 0.05) >= 4.5


def test_the_package_loads_no_figures_and_the_figures_no_language_model() -> None:
    code = (
        "import sys, somatlas; assert 'matplotlib' not in sys.modules;"
        "import somatlas.report; assert 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
