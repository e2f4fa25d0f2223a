"""Sweeps through the command on a tiny model, and how their points are pooled."""

from __future__ import annotations

import csv
import inspect
import multiprocessing
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint

import killed_run
from command import SMALL, SMALL_STAGES, Command, contents, run_offline
from conftest import save_tiny
from somatlas.completions import make
from somatlas.errors import InputError
from somatlas.files import read_json
from somatlas.models.load import load_model
from somatlas.numerics.statistics import crossed_interval, crossed_rate, mean_interval
from somatlas.report.comparison import comparison_text
from somatlas.runs.folder import model_arguments, run_at
from somatlas.runs.settings import STAGES, Config
from somatlas.searches import trials
from somatlas.sweep.axes import Axis, parse_axes, point_name
from somatlas.sweep.figure import sweep_figure

OVER = ("--over", "k=1-2", "--over", "seed=0-1")


def flags_without(*settings: str) -> list[str]:
    """SMALL without some of its flags."""
    pairs = zip(SMALL[::2], SMALL[1::2], strict=True)
    return [text for pair in pairs if pair[0] not in settings for text in pair]


FLAGS = flags_without("--k")
POINTS = [f"sweep_k={k}_seed={seed}" for k in (1, 2) for seed in (0, 1)]


def results(folder: Path) -> dict[str, Any]:
    """A sweep's files that repeat."""
    names = ("sweep.json", "sweep.csv", "figure.csv", "table.txt", "figure.svg", "figure.pdf")
    return {name: (folder / name).read_bytes() for name in names}


@pytest.fixture(scope="module")
def swept(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished sweep over k and seed, and its points beside it."""
    out = tmp_path_factory.mktemp("swept")
    run_offline("sweep", tiny_folder, *FLAGS, *OVER, "--out", out)
    return out / "tiny" / "sweep"


@pytest.fixture
def own(swept: Path, tmp_path: Path) -> Path:
    """The same, a test's own."""
    shutil.copytree(swept.parents[1], tmp_path / "runs")
    return tmp_path / "runs" / "tiny" / "sweep"


def test_every_point_is_the_run_that_the_ordinary_command_makes(
    command: Command, tiny_folder: Path, swept: Path, tmp_path: Path
) -> None:
    """The last point took its representations and layer from another seed's, the map from none."""
    for k, seed in ((1, 0), (2, 1)):
        name = f"sweep_k={k}_seed={seed}"
        place = ("--out", tmp_path, "--name", name, "--seed", str(seed))
        for stage in STAGES[: STAGES.index("judge") + 1]:
            stages = {**SMALL_STAGES, "search": flags_of("search", k)}
            result = command(stage, tiny_folder, *stages[stage], *place)
            assert result.code == 0, result.err
        assert contents(tmp_path / "tiny" / name) == contents(swept.parent / name)


def flags_of(stage: str, k: int) -> tuple[str, ...]:
    flags = list(SMALL_STAGES[stage])
    flags[flags.index("--k") + 1] = str(k)
    return tuple(flags)


def test_what_points_share_is_made_once_and_its_origin_recorded(swept: Path) -> None:
    stages = {name: read_json(swept.parent / name / "stages.json") for name in POINTS}
    taken = {
        (name, stage): record["taken_from"]
        for name, all_stages in stages.items()
        for stage, record in all_stages.items()
        if "taken_from" in record
    }
    first = "sweep_k=1_seed=0"
    assert taken == {
        **{(name, stage): first for name in POINTS[1:] for stage in ("represent", "layers")},
        ("sweep_k=2_seed=0", "map"): first,
        ("sweep_k=2_seed=1", "map"): "sweep_k=1_seed=1",
    }
    for name in POINTS[1:]:
        for stage in ("represent", "layers", "map"):
            assert stages[name][stage]["settings"]["seed"] == int(name[-1])
    paths = [swept.parent / n / "representations" / "positive-00000.safetensors" for n in POINTS]
    assert len({path.stat().st_ino for path in paths}) == 1


def test_a_row_a_point_and_a_figure_over_the_first_axis(swept: Path) -> None:
    found = read_json(swept / "sweep.json")
    assert [row["name"] for row in found["points"]] == POINTS
    for row in found["points"]:
        folder = swept.parent / row["name"]
        evaluation, search = (read_json(folder / f"{n}.json") for n in ("evaluation", "search"))
        test = evaluation["test"]["md"]
        assert {n: rate for n, rate in row["test"].items() if n != "kl"} == {
            n: rate for n, rate in test.items() if n != "kl"
        }
        assert row["test"]["kl"]["mean"] == pytest.approx(test["kl"])
        assert row["test"]["kl"]["low"] < test["kl"] < row["test"]["kl"]["high"]
        assert row["ranks"] == evaluation["ranks"] == search["ranks"]
        assert row["val"]["rate"] == search["val"]["asr"]
        assert row["optimism"] == search["selection"]["optimism"]
    (line,) = found["lines"]
    assert [point["k"] for point in line["points"]] == ["1", "2"]
    for point in line["points"]:
        own = [row for row in found["points"] if row["settings"]["k"] == point["k"]]
        assert point["seeds"] == ["0", "1"]
        for name, middle in (("asr", "rate"), ("refusal", "rate"), ("kl", "mean")):
            mean = np.mean([row["test"][name][middle] for row in own])
            assert point[name][middle] == pytest.approx(mean)
            assert point[name]["low"] <= mean <= point[name]["high"]


def test_the_figures_csv_equals_sweep_json(swept: Path) -> None:
    with (swept / "figure.csv").open() as file:
        rows = list(csv.DictReader(file))
    points = [p for line in read_json(swept / "sweep.json")["lines"] for p in line["points"]]
    assert len(rows) == len(points)
    for row, point in zip(rows, points, strict=True):
        assert row["k"] == point["k"]
        assert row["seeds"] == " ".join(point["seeds"])
        for name, middle in (
            ("asr", "rate"),
            ("refusal", "rate"),
            ("babble", "rate"),
            ("kl", "mean"),
        ):
            own = {
                middle: float(row[name]),
                **{key: float(row[f"{name}_{key}"]) for key in ("low", "high", "n")},
            }
            assert own == {key: point[name][key] for key in own}
    with (swept / "sweep.csv").open() as file:
        each = list(csv.DictReader(file))
    for row, kept in zip(each, read_json(swept / "sweep.json")["points"], strict=True):
        assert float(row["asr"]) == kept["test"]["asr"]["rate"]
        assert float(row["borderline_refusal_high"]) == kept["test"]["borderline_refusal"]["high"]


def test_a_finished_sweep_loads_no_model_and_gives_the_same_files(
    command: Command, tiny_folder: Path, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: Any, **__: Any) -> None:
        raise AssertionError("no model is needed")

    monkeypatch.setattr("somatlas.runs.folder.load_model", none)
    before = results(own)
    result = command("sweep", tiny_folder, "--out", own.parents[1])
    assert result.code == 0, result.err
    assert result.err.count("done before") == 4
    assert results(own) == before
    assert (own / "table.txt").read_text() in result.out


@pytest.mark.parametrize("call", [2, 30])
def test_an_interrupted_sweep_goes_on_without_its_flags(
    command: Command,
    tiny_folder: Path,
    swept: Path,
    tmp_path: Path,
    call: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ctrl-C in the n-th generation: of the first point, and of a later one."""
    generate, calls = make.generate, 0

    def interrupting(*args: Any, **kwargs: Any) -> list[str]:
        nonlocal calls
        calls += 1
        if calls == call:
            raise KeyboardInterrupt
        return generate(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(trials, "generate", interrupting)
        patch.setattr(make, "generate", interrupting)
        code, _, err = command("sweep", tiny_folder, *FLAGS, *OVER, "--out", tmp_path)
    assert code == 130, err
    given = () if call == 30 else (*FLAGS, *OVER)  # what the first command said is kept by then
    result = command("sweep", tiny_folder, *given, "--out", tmp_path)
    assert result.code == 0, result.err
    assert results(tmp_path / "tiny" / "sweep") == results(swept)
    for name in POINTS:
        assert contents(tmp_path / "tiny" / name) == contents(swept.parent / name)


@pytest.mark.slow
def test_a_sweep_killed_again_and_again_ends_as_one_that_was_not(
    tiny_folder: Path, swept: Path, tmp_path: Path
) -> None:
    arguments = ["sweep", str(tiny_folder), *FLAGS, *OVER, "--out", str(tmp_path)]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["killed_run"])
    for seconds in (0.5, 1.5, 2.5, 3.5, 4.5, 600):
        process = context.Process(target=killed_run.main, args=(arguments,))
        process.start()
        process.join(seconds)
        process.kill()
        process.join()
    assert process.exitcode == 0
    assert results(tmp_path / "tiny" / "sweep") == results(swept)
    for name in POINTS:
        left = contents(tmp_path / "tiny" / name)
        assert {k: v for k, v in left.items() if ".part" not in k} == contents(swept.parent / name)


def test_further_values_keep_the_settings_of_the_first_command(
    command: Command, tiny_folder: Path, own: Path
) -> None:
    """Without its flags the new points would take the defaults, and not be like the others."""
    over = ("--over", "k=1,3", "--over", "seed=0")
    result = command("sweep", tiny_folder, *over, "--out", own.parents[1])
    assert result.code == 0, result.err
    search = read_json(own.parent / "sweep_k=3_seed=0" / "search.json")
    assert (len(search["trials"]), search["val"]["n"]) == (4, 4)
    assert [row["name"] for row in read_json(own / "sweep.json")["points"]] == [
        "sweep_k=1_seed=0",
        "sweep_k=3_seed=0",
    ]


def test_points_compare_like_any_other_runs(swept: Path) -> None:
    text = comparison_text([run_at(swept.parent / name) for name in POINTS[:2]])
    assert "som (sweep_k=1_seed=1)" in text


def test_a_point_of_other_settings_is_refused_before_a_model_is_loaded(
    command: Command, tiny_folder: Path, own: Path
) -> None:
    place = ("--out", own.parents[1])
    message = command.fails("sweep", tiny_folder, *place, "--val-prompts", "3")
    assert "val_prompts = 4, not 3" in message
    assert message.startswith("somatlas: 4 things are wrong: (1) k=1, seed=0: ")
    shutil.rmtree(own)
    (own.parent / "sweep_k=1_seed=0").rename(own)
    assert "holds a run (its config.toml is there), and is no place for a sweep" in command.fails(
        "sweep", tiny_folder, *place, *OVER
    )


def test_a_point_that_cannot_be_made_is_named_and_the_others_are_made(
    command: Command, tiny_folder: Path, tmp_path: Path
) -> None:
    """Of 4 k-means centroids of near equal prompts some may be empty; here a damaged file stands
    for what is only known once a point is made."""
    place = ("--out", tmp_path, "--until", "judge")
    flags = flags_without("--k", "--grid", "--trials")
    over = ("--over", "k=1-2", "--trials", "2", "--grid", "2x2")
    study = tmp_path / "tiny" / "sweep_k=1" / "study.db"
    study.mkdir(parents=True)
    message = command.fails("sweep", tiny_folder, *flags, *over, *place)
    assert "1 points could not be made: sweep_k=1: storage" in message
    found = read_json(tmp_path / "tiny" / "sweep" / "sweep.json")
    assert list(found["failed"]) == ["sweep_k=1"]
    assert [row["name"] for row in found["points"]] == ["sweep_k=2"]
    study.rmdir()
    assert command("sweep", tiny_folder, *place).code == 0
    assert read_json(tmp_path / "tiny" / "sweep" / "sweep.json")["failed"] == {}


@pytest.mark.parametrize(
    ("flags", "messages"),
    [
        ((), ["needs an axis"]),
        (("--over", "k"), ["'k' must be like k=1-7"]),
        (("--over", "kk=1"), ["no setting 'kk'"]),
        (("--over", "name=a,b"), ["only settings that decide a run's result"]),
        (("--over", "model=a,b"), ["only settings that decide a run's result"]),
        (("--over", "k=1,,2"), ["empty value"]),
        (("--over", "k=1,1"), ["the value 1 twice"]),
        (("--over", "k=3-1"), ["3-1 is no range"]),
        (("--over", "k=1", "--over", "k=2"), ["given twice"]),
        (("--over", "k=1-2", "--k", "1"), ["k is given twice, by --k and --over"]),
        (("--over", "grid=4"), ["setting 'grid' cannot be '4'"]),
        (("--over", "method=som,none"), ["setting 'method' cannot be 'none'"]),
        (("--over", "tasks=a"), ["changes nothing before the stage cost"]),
        (("--over", "k=1", "--ids", "1"), ["where --ids names the ranks"]),
        (
            ("--over", "k=2-3", "--over", "method=sd"),
            ["2 things are wrong", "method 'sd' makes one direction"],
        ),
        (("--over", "grid=9x9"), ["81 neurons", "24 train prompts"]),
        (("--over", "seed=0-2000"), ["2001 points, more than 1000"]),
        (
            ("--over", "k=3-8", "--over", "grid=2x2,2x3"),
            [
                "6 things are wrong",
                "(1) k=5, grid=2x2: k = 5 directions cannot be taken from 4",
                "k=8",
            ],
        ),
        (
            ("--over", "k=0", "--over", "kk=1", "--over", "seed"),
            ["2 things are wrong", "kk", "'seed'"],
        ),
    ],
)
def test_bad_axes_are_one_sentence_before_the_model_is_loaded(
    command: Command, tmp_path: Path, flags: tuple[str, ...], messages: list[str]
) -> None:
    """The model named does not exist: whatever loads it fails with another sentence."""
    place = ("--out", tmp_path, "--train-prompts", "24")
    message = command.fails("sweep", tmp_path / "none", *flags, *place)
    for text in messages:
        assert text in message
    assert not list(tmp_path.rglob("*.json"))


def test_a_model_that_cannot_be_loaded_leaves_nothing(command: Command, tmp_path: Path) -> None:
    place = ("--out", tmp_path / "runs")
    message = command.fails("sweep", tmp_path / "none", "--over", "k=1-2", *place)
    assert "none" in message
    assert not (tmp_path / "runs").exists()


def test_values_are_read_as_they_are_meant() -> None:
    texts = ["k=1-3,7", "grid=3x3,4x4", "objective=asr;asr,kl", "ids=0,1;2", "system=a 1-2"]
    assert parse_axes(texts) == [
        Axis("k", ("1", "2", "3", "7")),
        Axis("grid", ("3x3", "4x4")),
        Axis("objective", ("asr", "asr,kl")),
        Axis("ids", ("0,1", "2")),
        Axis("system", ("a 1-2",)),
    ]
    with pytest.raises(InputError, match=r"2 things are wrong: \(1\) .*; \(2\) "):
        parse_axes(["a=1", "b=1"])
    with pytest.raises(InputError, match="has the value 1 twice"):
        parse_axes(["k=01,1"])
    with pytest.raises(InputError, match="has more than 10000 values"):
        parse_axes(["seed=0-20000"])


def test_names_of_points_are_plain_and_apart() -> None:
    assert point_name("s", {"k": "1", "grid": "4x4"}) == "s_k=1_grid=4x4"
    names = [point_name("s", {"system": text}) for text in ("a/b", "a:b", "a" * 300, "a" * 301)]
    assert len(set(names)) == 4
    for name in names:
        assert not set(name) & set('/\\:*?"<>|')
        assert len(name) < 80


def test_one_seed_pools_to_wilson_and_equal_cells_too() -> None:
    """Against statsmodels, for one row and for rows that are all alike."""
    for rows in ([[1.0] * 9 + [0.0] * 3], [[1.0] * 12] * 3, [[0.0] * 12] * 3):
        share = float(np.mean(rows))
        low, high = proportion_confint(round(share * 12), 12, method="wilson")
        found = crossed_rate(rows, seed=0)
        assert (found.rate, found.n) == (share, 12)
        assert found.low is not None
        assert found.high is not None
        assert found.low <= low + 1e-12
        assert found.high >= high - 1e-12
        if len(set(rows[0])) == 1:
            assert (found.low, found.high) == pytest.approx((low, high), abs=1e-12)


def test_missing_cells_count_for_nothing() -> None:
    nan = float("nan")
    assert crossed_rate([[1.0, nan], [0.0, nan]], seed=0).rate == 0.5
    assert crossed_rate([[1.0, nan], [0.0, nan]], seed=0).n == 1
    assert crossed_rate([[nan]], seed=0).rate is None
    assert crossed_interval([[nan]], seed=0) is None


def test_one_row_is_the_ordinary_bootstrap() -> None:
    values = np.random.default_rng(0).gamma(1.0, size=40).tolist()
    found, plain = crossed_interval([values], seed=0), mean_interval(values, seed=0)
    assert found is not None
    assert found == pytest.approx(plain, rel=0.03)


def test_the_interval_over_seeds_holds_the_mean_of_all_seeds_and_prompts() -> None:
    """Planted: prompts, seeds and noise of known spread. The interval holds the true mean about 95
    times in 100; one over prompts alone, as if seeds were no draw, does so far less often."""
    rng = np.random.default_rng(1)
    crossed = alone = 0
    for _ in range(200):
        seeds, prompts = rng.normal(0, 0.5, size=(10, 1)), rng.normal(0, 1, size=(1, 60))
        cells = seeds + prompts + rng.normal(0, 1, size=(10, 60))
        found = crossed_interval(cells.tolist(), seed=0)
        assert found is not None
        crossed += found[1] <= 0 <= found[2]
        _, low, high = mean_interval(cells.mean(axis=0).tolist(), seed=0)
        alone += low <= 0 <= high
    assert 180 <= crossed <= 198
    assert alone < 170


def test_the_figure_draws_every_line_and_bars_where_places_have_no_order() -> None:
    rate = {"rate": 0.5, "low": 0.4, "high": 0.6, "n": 9, "by_seed": [0.4, 0.6]}
    kl = {"mean": 1.0, "low": 0.9, "high": 1.1, "n": 9}
    points = [{"k": k, "asr": rate, "kl": kl} for k in ("10", "2")]
    left, right = sweep_figure("k", ["10", "2"], {"a": points, "b": points}).axes
    assert [list(line.get_xdata()) for line in left.lines if line.get_label() == "a"] == [[2, 10]]
    assert len(left.collections) == 2  # bands
    assert sum(line.get_marker() == "." for line in left.lines) == 4
    assert [list(line.get_ydata()) for line in right.lines if line.get_label() == "b"] == [[1, 1]]
    points = [{"method": name, "asr": rate, "kl": kl} for name in ("som", "sd")]
    left, _ = sweep_figure("method", ["som", "sd"], {"MD": points}).axes
    assert [text.get_text() for text in left.get_xticklabels()] == ["som", "sd"]
    assert left.lines[0].get_linestyle() == "None"


def test_a_run_tells_the_loader_all_that_it_takes() -> None:
    """And so runs that may share a loaded model are told apart by all of it."""
    taken = inspect.signature(load_model).parameters.keys() - {"name"}
    assert model_arguments(Config()).keys() == taken
    assert model_arguments(Config(date="2020-02-02"))["date"] == "2020-02-02"


def test_points_of_other_weights_are_not_gone_on_with(command: Command, tmp_path: Path) -> None:
    """The finished points load no model: their weights are compared once a further one does."""
    place = ("--out", tmp_path / "runs")
    model = save_tiny(tmp_path / "m" / "tiny", seed=0)
    assert command("sweep", model, *FLAGS, *place, "--over", "k=1").code == 0
    save_tiny(model, seed=1)
    message = command.fails("sweep", model, *place, "--over", "k=1-2")
    assert "was made with other weights" in message
    assert not (tmp_path / "runs" / "tiny" / "sweep_k=2").exists()
