"""Runs side by side."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from command import SMALL, Command, run_offline
from somatlas.evaluation import read_jsonl
from somatlas.files import read_json
from somatlas.report.comparison import comparison_text
from somatlas.run import run_at
from somatlas.statistics import mcnemar

METHODS = ("som", "points", "kmeans")


@pytest.fixture(scope="module")
def compared(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of three finished runs of the tiny model, one a method."""
    out = tmp_path_factory.mktemp("compared")
    for method in METHODS:
        flags = (*SMALL, "--out", out, "--name", method, "--method", method)
        run_offline("run", tiny_folder, *flags, "--objective", "asr,kl")
    return out / "tiny"


@pytest.fixture
def folders(compared: Path, tmp_path: Path) -> list[Path]:
    """The three, a test's own."""
    return [
        Path(shutil.copytree(compared / name, tmp_path / "runs" / "tiny" / name))
        for name in METHODS
    ]


def judged(folder: Path, condition: str, verdicts: list[str]) -> None:
    """Give a condition's harmful replies these verdicts."""
    rows, own = read_jsonl(folder / "verdicts.jsonl"), iter(verdicts)
    for row in rows:
        if row["condition"] == condition and row["kind"] == "harmful":
            row["verdict"] = next(own)
    (folder / "verdicts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_methods_are_compared_on_the_same_prompts(command: Command, folders: list[Path]) -> None:
    result = command("compare", *folders)
    assert result.code == 0, result.err
    for text in (
        "sd",
        *METHODS,
        "p (Holm)",
        "over the searches' trials",
        "refusal at KL",
        "harmless answered",
    ):
        assert text in result.out
    tests = [line for line in result.out.split("\n") if " against " in line]
    assert sum("second" not in line and "k-means" not in line for line in tests) == 6
    assert sum("k-means (kmeans) against the map (som)" in line for line in tests) == 2
    assert "floor points, random harmful representations minus the harmless mean: 1 draw" in (
        result.out
    )
    assert "som: of 1 draw of the floors, ASR is as high in" in result.out
    steps = read_json(folders[0] / "atlas.json")["steps"]
    lines = [line.split() for line in result.out.split("\n") if line.split()[:1] == ["som"]]
    assert sum(f"{step['kl']:.3f}" in line for step in steps for line in lines) >= len(steps)


def test_missing_verdicts_count_neither_for_nor_against(folders: list[Path]) -> None:
    n = sum(
        row["condition"] == "md" and row["kind"] == "harmful"
        for row in read_jsonl(folders[0] / "verdicts.jsonl")
    )
    judged(folders[0], "md", ["missing"] * (n - 1) + ["refused"])
    judged(folders[1], "md", ["complied"] * n)
    text = comparison_text([run_at(folder) for folder in folders[:2]])
    (line,) = (row for row in text.split("\n") if "points, floor against som" in row)
    assert "+100 [+100, +100]" in line  # over the one prompt that both have a verdict of
    assert mcnemar(0, 1) == 1
    assert "= 1.000" in line


def test_what_was_not_alike_is_named(
    command: Command, folders: list[Path], tiny_folder: Path
) -> None:
    out = folders[0].parents[1]
    flags = (*SMALL, "--out", out, "--name", "other", "--trials", "5", "--seed", "3")
    assert command("run", tiny_folder, *flags).code == 0
    text = comparison_text([run_at(folders[0]), run_at(out / "tiny" / "other")])
    assert "not alike: trials (4, 5)" in text
    assert "not alike: seed (0, 3)" in text
    assert "not alike: k " not in text
    # One of the two searches alone measured drift.
    assert "least over the steps of k" in text


def test_runs_on_other_prompts_or_with_other_replies_are_not_compared(
    command: Command, folders: list[Path], tiny_folder: Path
) -> None:
    out = folders[0].parents[1]
    for name, flags, words in (
        ("prompts", ("--test-prompts", "2"), "tested on other prompts"),
        ("tokens", ("--test-tokens", "5"), "tested with test_tokens 5"),
    ):
        assert command("run", tiny_folder, *SMALL, *flags, "--out", out, "--name", name).code == 0
        assert words in command.fails("compare", folders[0], out / "tiny" / name)


def test_the_unablated_point_counts_once_a_model(folders: list[Path], tmp_path: Path) -> None:
    measured = {"compactness": 2.0, "harmless_compactness": 4.0, "ratio": 0.5, "distance": 3.0}
    for shift, folder in enumerate(folders[:2]):
        atlas = read_json(folder / "atlas.json")
        atlas["steps"] = [
            {**atlas["steps"][0], "k": k, "asr": 0.05 * k * (k + shift)}
            | {name: value / (k + 1) ** (1 + shift) for name, value in measured.items()}
            for k in range(4)
        ]
        (folder / "atlas.json").write_text(json.dumps(atlas))
    x = [1, *(1 / (k + 1) ** (1 + shift) for shift in range(2) for k in (1, 2, 3))]
    y = [0, *(0.05 * k * (k + shift) for shift in range(2) for k in (1, 2, 3))]
    text = comparison_text([run_at(folder) for folder in folders[:2]])
    assert text.count(f"r {np.corrcoef(x, y)[0, 1]:+.2f} over 7 steps") == 4
    other = Path(shutil.copytree(folders[1], tmp_path / "runs" / "large" / "random"))
    assert "over 8 steps" in comparison_text([run_at(folders[0]), run_at(other)])


def test_runs_of_two_models_are_told_apart(folders: list[Path], tmp_path: Path) -> None:
    other = shutil.copytree(folders[0], tmp_path / "runs" / "large" / "som")
    text = comparison_text([run_at(folders[0]), run_at(Path(other))])
    for name in ("sd, tiny", "som, tiny", "sd, large", "som, large"):
        assert name in text
