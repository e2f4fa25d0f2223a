"""The figures: each from a run's folder and from plain arrays, and what they are in grey."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from somatlas import SOM, InputError
from somatlas.atlas import plane, stability
from somatlas.geometry import cosine_matrix
from somatlas.report import (
    cosine_figure,
    front_figure,
    layers_figure,
    map_figure,
    plane_figure,
    run_figures,
    scaling_figure,
    stability_figure,
    steps_figure,
)
from somatlas.report.colours import COSINES, U_MATRIX, ink_on
from somatlas.report.control_figures import knobs_figure

RNG = np.random.default_rng(0)
ALWAYS = {"layers", "map", "steps", "scaling", "plane", "cosines", "stability", "knobs"}


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
            given(k), **dict.fromkeys(("asr", "kl", "compactness", "distance"), given(steps))
        ),
        "scaling": scaling_figure(
            given(k), given(RNG.random((3, 9, 3))), given(RNG.random((3, 7, 3))), given(steps)
        ),
        "plane": plane_figure(plane(harmful, harmless, directions), ranks),
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
    assert [round(axes.get_xlim()[1]) for axes in figures["stability"].axes] == [1, 1, 94, 1]


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
