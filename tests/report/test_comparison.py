"""Runs side by side."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from statsmodels.stats.proportion import proportion_confint

from command import SMALL, Command, run_offline
from somatlas.evaluation.pooling import pooled_rate
from somatlas.files import read_json, read_jsonl
from somatlas.numerics.statistics import mcnemar
from somatlas.report.comparison import comparison_text
from somatlas.runs.folder import run_at
from somatlas.runs.remeasure import LEVELS, Level, chosen_trial, remeasured

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
        "chosen and measured on the same val prompts",
        "--remeasure measures the sets on test prompts",
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
        place = ("--out", out, "--name", name)
        assert command.until("judge", tiny_folder, *SMALL, *flags, *place).code == 0
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


def test_a_copy_of_a_run_is_told_apart_and_one_that_is_named_twice_refused(
    command: Command, folders: list[Path]
) -> None:
    copied = shutil.copytree(folders[0], folders[0].parent / "copied")
    result = command("compare", folders[0], copied)
    assert result.code == 0, result.err
    assert "(copied)" in result.out
    message = command.fails("compare", folders[0], f"{folders[0]}/../{folders[0].name}")
    assert "is named twice" in message


def test_runs_of_two_models_are_told_apart(folders: list[Path], tmp_path: Path) -> None:
    other = shutil.copytree(folders[0], tmp_path / "runs" / "large" / "som")
    text = comparison_text([run_at(folders[0]), run_at(Path(other))])
    for name in ("sd, tiny", "som, tiny", "sd, large", "som, large"):
        assert name in text


def test_the_least_trial_at_a_level_is_chosen_on_val() -> None:
    """Against all trials in turn, on random ones with ties."""
    rng = np.random.default_rng(0)
    trials: list[dict[str, Any]] = [
        {
            "ranks": [n],
            "refusal": float(rng.integers(5)) / 4,
            "kl": None if n % 7 == 0 else float(rng.integers(1, 8)) / 4,
            "pruned": n % 5 == 0,
        }
        for n in range(60)
    ]
    for level in LEVELS:
        chosen = chosen_trial(trials, level)
        other = "kl" if level.of == "refusal" else "refusal"
        able = [t for t in trials if t["kl"] is not None and not t["pruned"]]
        able = [t for t in able if t[level.of] <= level.most]
        if not able:
            assert chosen is None
            continue
        assert chosen in able
        assert chosen is not None
        for trial in able:
            assert (chosen[other], chosen[level.of]) <= (trial[other], trial[level.of])
    assert chosen_trial(trials, Level("kl", 0.1)) is None
    assert chosen_trial(trials, Level("kl", 0.3)) is not None


def test_sets_are_measured_on_test_prompts_as_a_run_of_those_ranks_is(
    command: Command, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refusal, its interval and KL equal those of a run whose ranks are given by hand; done once,
    after which neither command loads a model. The behaviour is one that some random replies show.
    """
    behaviour = tmp_path / "behaviour.txt"
    behaviour.write_text("[a-m]\n")
    out = tmp_path / "runs"
    place = (*SMALL, "--out", out, "--objective", "asr,kl", "--behaviour", behaviour)
    for method in ("som", "random"):
        result = command.until("judge", tiny_folder, *place, "--method", method, "--name", method)
        assert result.code == 0, result.err
    pair = [out / "tiny" / "som", out / "tiny" / "random"]
    result = command("compare", *pair, "--remeasure")
    assert result.code == 0, result.err
    assert "chosen on val prompts, measured again on test prompts" in result.out
    assert "chosen and measured on the same val prompts" not in result.out
    found = remeasured(run_at(pair[0]))
    assert found
    trial, measured = next(
        (trial, own) for trial, own in found.values() if 0 < sum(own.refused.values()) < 6
    )
    ranks = ",".join(map(str, trial["ranks"]))
    assert command.until("judge", tiny_folder, *place, "--ids", ranks, "--name", "hand").code == 0
    hand = read_json(out / "tiny" / "hand" / "evaluation.json")["test"]["md"]
    assert 0 < hand["refusal"]["rate"] < 1
    assert np.mean(list(measured.refused.values())) == hand["refusal"]["rate"]
    rate = pooled_rate([measured.refused])
    assert (rate.low, rate.high, rate.n) == tuple(hand["refusal"][k] for k in ("low", "high", "n"))
    assert np.mean(list(measured.kl.values())) == pytest.approx(hand["kl"], rel=1e-6)

    def none(*_: Any, **__: Any) -> None:
        raise AssertionError("no model is needed")

    monkeypatch.setattr("somatlas.runs.folder.load_model", none)
    for flags in ((), ("--remeasure",)):
        assert command("compare", *pair, *flags).out == result.out


def test_other_directions_are_measured_anew(command: Command, folders: list[Path]) -> None:
    assert command("compare", folders[0], "--remeasure").code == 0
    assert remeasured(run_at(folders[0])) is not None
    path = folders[0] / "directions.safetensors"
    tensors = load_file(path)
    tensors["vectors"][:] += 1.0
    save_file(tensors, path)
    assert remeasured(run_at(folders[0])) is None


def test_runs_that_differ_in_their_seed_are_one_row(
    command: Command, folders: list[Path], tiny_folder: Path
) -> None:
    out = folders[0].parents[1]
    flags = (*SMALL, "--out", out, "--name", "seed1", "--seed", "1", "--objective", "asr,kl")
    assert command.until("judge", tiny_folder, *flags).code == 0
    seeds = [folders[0], out / "tiny" / "seed1"]
    result = command("compare", *seeds, folders[2], "--remeasure")
    assert result.code == 0, result.err
    found = [remeasured(run_at(folder)) for folder in seeds]
    lines = [line for line in result.out.split("\n") if line.strip().startswith("som, 2 seeds")]
    assert len(lines) == len(LEVELS)
    for level, line in zip(LEVELS, lines, strict=True):
        assert str(level) in line
        chosen = [own[level][1] for own in found if own and level in own]
        if not chosen:
            assert line.split()[-6:] == ["-"] * 6
            continue
        assert f"{len(chosen)} of 2" in line
        drift = np.mean([kl for own in chosen for kl in own.kl.values()])
        assert f"{drift:.3f} [" in line
        refused = [share for own in chosen for share in own.refused.values()]
        assert f"{100 * np.mean(refused):.0f} % [" in line


def test_one_runs_rate_is_wilsons() -> None:
    cells = {str(n): float(n < 5) for n in range(17)}
    rate = pooled_rate([cells])
    assert (rate.low, rate.high) == pytest.approx(proportion_confint(5, 17, method="wilson"))


def test_searches_without_drift_cannot_be_measured_again(
    command: Command, tiny_folder: Path, folders: list[Path]
) -> None:
    out = folders[0].parents[1]
    assert command.until("judge", tiny_folder, *SMALL, "--out", out, "--name", "asr").code == 0
    other = out / "tiny" / "asr"
    assert "no run measured drift" in command.fails("compare", other, "--remeasure")
    text = command("compare", folders[0], other, "--remeasure").out
    assert "not measured again: the search of som (asr) measured no drift" in text


def test_optimism_is_the_mean_over_the_contenders(folders: list[Path]) -> None:
    for folder in folders:
        found = read_json(folder / "search.json")["selection"]
        gaps = [one["val_asr"] - one["selection_asr"] for one in found["contenders"]]
        assert len(gaps) > 1
        assert found["optimism"] == pytest.approx(np.mean(gaps))
        assert found["optimism_contenders"] == len(gaps)
