"""The page and the comparison: what they show, what they hide, what they refuse."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from command import SMALL, SMALL_STAGES, Command

HOSTILE = "<script>alert(1)</script>"
FORMULA = "=HYPERLINK(1)"


@pytest.fixture
def prompts(tmp_path: Path) -> tuple[str, ...]:
    """Files of requests, some of which would be code on a page or in a spreadsheet."""
    flags: list[str] = []
    for side, word in (("positive", "break"), ("negative", "mend"), ("borderline", "bend")):
        path = tmp_path / f"{side}.txt"
        lines = [f"{HOSTILE} {word} {i}" if i % 2 else f"{FORMULA} {word} {i}" for i in range(80)]
        path.write_text("\n".join(lines))
        flags += [f"--{side}", str(path)]
    return tuple(flags)


@pytest.fixture
def run(command: Command, tiny_folder: Path, tmp_path: Path, prompts: tuple[str, ...]) -> Path:
    result = command("run", tiny_folder, *SMALL, *prompts, "--out", tmp_path / "runs")
    assert result.code == 0, result.err
    assert f"report: {tmp_path}" in result.out
    return tmp_path / "runs" / "tiny" / "default"


def test_the_page_stands_alone_and_what_it_quotes_stays_text(run: Path) -> None:
    page = (run / "report.html").read_text()
    assert HOSTILE not in page
    assert "&lt;script&gt;alert(1)" in page
    assert len(page) < 6_000_000
    assert not re.findall(r"(?:src|href)=[\"'](?!data:)", page)
    assert page.count("data:image/svg+xml") == 6 + 1
    csv = (run / "figures" / "map.csv").read_text()
    assert f"'{FORMULA}" in csv
    assert f",{FORMULA}" not in csv


def test_replies_are_hidden_unless_asked_for(command: Command, run: Path) -> None:
    assert "<h2>Replies</h2>" not in (run / "report.html").read_text()
    assert command("report", run, "--show-completions").code == 0
    page = (run / "report.html").read_text()
    assert "<h2>Replies</h2>" in page
    assert HOSTILE not in page


def test_a_run_that_is_not_finished_says_what_is_missing(
    command: Command, tiny_folder: Path, tmp_path: Path
) -> None:
    place = ("--out", tmp_path)
    for stage in ("represent", "layers"):
        assert command(stage, tiny_folder, *SMALL_STAGES[stage], *place).code == 0
    result = command("report", tmp_path / "tiny" / "default")
    assert result.code == 0, result.err
    page = Path(result.out.strip()).read_text()
    assert page.count("Missing:") == 3
    assert "somatlas run" in page
    assert "Where to cut" in page


def test_a_folder_that_is_no_run(command: Command, tmp_path: Path) -> None:
    assert "is no run folder" in command.fails("report", tmp_path)


@pytest.mark.slow
def test_a_browser_draws_the_page_without_a_complaint(run: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("Chromium is not installed (Debian: apt install chromium)")
    line = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    line += ["--virtual-time-budget=3000", "--dump-dom", f"file://{run / 'report.html'}"]
    result = subprocess.run(line, capture_output=True, text=True, timeout=120)
    assert "CONSOLE" not in result.stderr
    drawn = re.search(r'data-drawn="(\d+)"', result.stdout)
    assert drawn is not None
    assert int(drawn[1]) > 10


def test_methods_are_compared_on_the_same_prompts(
    command: Command, tiny_folder: Path, tmp_path: Path
) -> None:
    folders = []
    for method in ("som", "random", "kmeans"):
        flags = (*SMALL, "--out", tmp_path, "--name", method, "--method", method)
        result = command("run", tiny_folder, *flags, "--objective", "asr,kl")
        assert result.code == 0, result.err
        folders.append(tmp_path / "tiny" / method)
    result = command("compare", *folders)
    assert result.code == 0, result.err
    for text in ("sd", "som (som)", "random (random)", "kmeans (kmeans)", "p (Holm)", "least KL"):
        assert text in result.out
    assert result.out.count(" against ") == 6


def test_runs_on_other_prompts_are_not_compared(
    command: Command, tiny_folder: Path, run: Path, tmp_path: Path
) -> None:
    assert command("run", tiny_folder, *SMALL, "--out", tmp_path / "b").code == 0
    message = command.fails("compare", run, tmp_path / "b" / "tiny" / "default")
    assert "tested on other prompts" in message


def test_one_direction_and_a_method_of_one(
    command: Command, tiny_folder: Path, tmp_path: Path
) -> None:
    flags = (*SMALL, "--out", tmp_path, "--method", "sd")
    assert "lower --k" in command.fails("run", tiny_folder, *flags)
    result = command("run", tiny_folder, *flags, "--k", "1", "--name", "one")
    assert result.code == 0, result.err
