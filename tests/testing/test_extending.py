"""What docs/extending.md shows of methods and samplers is run as a package of its own."""

from __future__ import annotations

import importlib
import re
import tomllib
from pathlib import Path

import pytest

from command import Command
from somatlas import DirectionSet, InputError
from somatlas.directions.methods import METHODS
from somatlas.files import read_json
from somatlas.runs.settings import Config
from somatlas.searches.samplers import SAMPLERS
from somatlas.testing import SamplerContract

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the import path that holds the page's modules, and its entry points as an
    installed package has them."""
    text = PAGE.read_text(encoding="utf-8")
    folder, points = tmp_path / "package", ""
    info = folder / "extending-1.0.dist-info"
    info.mkdir(parents=True)
    for language, block in re.findall(r"```(python|toml)\n(.*?)```", text, flags=re.S):
        if language == "python" and (name := re.search(r"class (Median|Climbing)\w+\(", block)):
            module = {"Median": "median_method", "Climbing": "climbing_sampler"}[name[1]]
            (folder / f"{module}.py").write_text(block)
        elif language == "python" and "class TestMedian" in block:
            (folder / "its_test.py").write_text(block)
        elif language == "toml" and "somatlas.judges" not in block:
            for group, own in tomllib.loads(block)["project"]["entry-points"].items():
                points += f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in own.items())
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: extending\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(folder)
    return folder


def test_the_pages_method_and_sampler_keep_their_contracts(package: Path, tmp_path: Path) -> None:
    contract = importlib.import_module("its_test").TestMedian()
    tests = [name for name in dir(contract) if name.startswith("test_")]
    assert len(tests) > 10
    for name in tests:
        paths = (tmp_path,) if "come_back_from_their_file" in name else ()
        getattr(contract, name)(*paths)

    class Climbing(SamplerContract):
        def make(self) -> object:  # type: ignore[override]
            return SAMPLERS.get("climbing")()

    Climbing().test_every_point_is_tried_once_and_none_twice(tmp_path)
    Climbing().test_the_same_seed_gives_the_same_trials(tmp_path)


def test_a_run_takes_them_by_name_with_their_settings(
    package: Path, command: Command, tiny_folder: Path, tmp_path: Path
) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text(
        'method = "median"\nmethod_settings = { trim = 0.2 }\nsampler = "climbing"\n'
        "k = 1\ntrials = 2\nval_prompts = 2\ntest_tokens = 2\nlayer = 1\ntrain_prompts = 12\n"
        'grid = "2x2"\ncoherence = "off"\nselection_prompts = 1\n'
    )
    for stage in ("represent", "map", "search"):
        result = command(stage, tiny_folder, "--config", settings, "--out", tmp_path / "runs")
        assert result.code == 0, result.err
    folder = tmp_path / "runs" / "tiny" / "default"
    kept = tomllib.loads((folder / "config.toml").read_text())
    assert kept["method_settings"] == {"trim": 0.2}
    assert kept["sampler"] == "climbing"
    assert kept["sampler_settings"] == {"jump": 0.1}
    assert DirectionSet.load(folder / "directions.safetensors").origin.method == "median"
    assert read_json(folder / "search.json")["ranks"] == [0]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"method_settings": "trim=2"}, r"setting 'trim' of method 'median' cannot be '2'"),
        ({"method_settings": {"colour": 1}}, r"method 'median' has no setting 'colour': it has tr"),
        ({"k": 3}, r"method 'median' makes one direction"),
        ({"draw": 1}, r"method 'median' draws nothing"),
        ({"sampler": "climbing", "sampler_settings": "jump=x"}, r"'jump' of sampler 'climbing'"),
    ],
)
def test_what_is_wrong_with_their_settings_is_said(
    settings: dict[str, object], said: str, package: Path
) -> None:
    with pytest.raises(InputError, match=said):
        Config.merged({"method": "median", "k": 1, **settings})


def test_a_package_that_is_broken_is_named_and_stops_nothing_else(package: Path) -> None:
    points = next(package.glob("*.dist-info")) / "entry_points.txt"
    claims = "kmeans = median_method:MedianDirections\ngone = nowhere:Gone\nodd = json:loads\n"
    points.write_text(f"[somatlas.methods]\n{claims}other = median_method:MedianDirections\n")
    METHODS.get("som")
    for name, said in (
        ("kmeans", "claims the name too"),
        ("gone", "cannot be imported"),
        ("odd", "must be a class that derives from"),
        ("other", "calls itself 'median'"),
    ):
        with pytest.raises(InputError, match=said):
            METHODS.get(name)
