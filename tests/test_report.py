"""The page and the comparison: what they show, what they hide, what they refuse."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from command import SMALL, SMALL_STAGES, Command, run_offline
from somatlas import DirectionSet

HOSTILE = "<script>alert(1)</script>"
FORMULA = "=HYPERLINK(1)"


@pytest.fixture(scope="module")
def hostile_run(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on requests some of which would be code on a page or in a spreadsheet."""
    place = tmp_path_factory.mktemp("hostile")
    flags: list[str] = []
    for side, word in (("positive", "break"), ("negative", "mend"), ("borderline", "bend")):
        path = place / f"{side}.txt"
        lines = [f"{HOSTILE} {word} {i}" if i % 2 else f"{FORMULA} {word} {i}" for i in range(80)]
        path.write_text("\n".join(lines))
        flags += [f"--{side}", str(path)]
    run_offline("run", tiny_folder, *SMALL, *flags, "--out", place / "runs")
    return place / "runs" / "tiny" / "default"


@pytest.fixture
def run(hostile_run: Path, tmp_path: Path) -> Path:
    """A test's own copy."""
    return Path(shutil.copytree(hostile_run, tmp_path / "runs" / "tiny" / "default"))


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


def in_browser(page: Path) -> tuple[str, str]:
    """The page's document after its scripts, and what the browser logged."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("Chromium is not installed (Debian: apt install chromium)")
    line = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    line += ["--virtual-time-budget=3000", "--dump-dom", f"file://{page}"]
    result = subprocess.run(line, capture_output=True, text=True, timeout=120)
    return result.stdout, result.stderr


@pytest.mark.slow
def test_a_browser_draws_the_page_without_a_complaint(run: Path) -> None:
    document, log = in_browser(run / "report.html")
    assert "CONSOLE" not in log
    drawn = re.search(r'data-drawn="(\d+)"', document)
    assert drawn is not None
    assert int(drawn[1]) > 10


@pytest.mark.slow
def test_pointing_at_a_neuron_shows_its_prompts_as_text(run: Path) -> None:
    page = (run / "report.html").read_text()
    script = """<script>
    document.querySelector(".cell").dispatchEvent(new MouseEvent("mouseenter"));
    var about = document.getElementById("about");
    document.body.dataset.lists = about.querySelectorAll("li").length;
    document.body.dataset.scripts = about.querySelectorAll("script").length;
    </script>"""
    pointed = run / "pointed.html"
    pointed.write_text(page.replace("</body>", f"{script}</body>"))
    document, log = in_browser(pointed)
    assert "CONSOLE" not in log
    lists = re.search(r'data-lists="(\d+)"', document)
    assert lists is not None
    assert int(lists[1]) > 0
    assert 'data-scripts="0"' in document


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
    for text in ("sd", "som", "random", "kmeans", "p (Holm)", "least KL", "k = 2"):
        assert text in result.out
    assert result.out.count(" against ") == 6


def test_runs_on_other_prompts_are_not_compared(
    command: Command, hostile_run: Path, finished_runs: Path
) -> None:
    message = command.fails("compare", hostile_run, finished_runs / "tiny" / "default")
    assert "tested on other prompts" in message


def test_one_direction_and_a_method_of_one(
    command: Command, tiny_folder: Path, tmp_path: Path
) -> None:
    flags = (*SMALL, "--out", tmp_path, "--method", "sd")
    assert "lower --k" in command.fails("run", tiny_folder, *flags)
    result = command("run", tiny_folder, *flags, "--k", "1", "--name", "one")
    assert result.code == 0, result.err


WORDS = {"positive": "砸坏 كسر взломать", "negative": "修理 إصلاح починить", "borderline": "弯 🙂"}


def test_prompts_of_any_script_replies_all_refused_and_two_equal_directions(
    command: Command, tiny_folder: Path, tmp_path: Path
) -> None:
    flags: list[str | Path] = []
    for side, words in WORDS.items():
        path = tmp_path / f"{side}.txt"
        path.write_text("\n".join(f"{words} {i}" for i in range(80)), encoding="utf-8")
        flags += [f"--{side}", path]
    behaviour = tmp_path / "any.txt"
    behaviour.write_text("^.*\n")  # every reply shows it
    equal = tmp_path / "equal.safetensors"
    DirectionSet(torch.ones(2, 32), torch.zeros(2).long(), torch.ones(2).long()).save(equal, {})
    flags += ["--behaviour", behaviour, "--directions", equal, "--ids", "0,1", "--out", tmp_path]
    result = command("run", tiny_folder, *SMALL, *flags, "--mode", "subspace")
    assert result.code == 0, result.err
    page = (tmp_path / "tiny" / "default" / "report.html").read_text(encoding="utf-8")
    assert "взломать" in page
    rows = (tmp_path / "tiny" / "default" / "verdicts.jsonl").read_text().splitlines()
    assert all('"verdict": "refused"' in row for row in rows)


def test_a_map_of_which_one_neuron_alone_is_hit(
    command: Command, tiny_folder: Path, tmp_path: Path
) -> None:
    flags: list[str | Path] = []
    for side, word in (("positive", "break"), ("negative", "mend"), ("borderline", "bend")):
        path = tmp_path / f"{side}.txt"
        path.write_text("\n".join(f"{word} {i}" for i in range(80)))
        flags += [f"--{side}", path]
    result = command(
        "run", tiny_folder, *SMALL, *flags, "--grid", "1x1", "--k", "1", "--out", tmp_path
    )
    assert result.code == 0, result.err
    assert "report.html" in result.out


@pytest.mark.slow
def test_ten_thousand_prompts(command: Command, tiny_folder: Path, tmp_path: Path) -> None:
    flags: list[str | Path] = []
    for side, word in (("positive", "break"), ("negative", "mend")):
        path = tmp_path / f"{side}.txt"
        path.write_text("\n".join(f"{word} the thing number {i}" for i in range(10_000)))
        flags += [f"--{side}", path]
    small = [x for x in SMALL if x not in ("--train-prompts", "24")]
    result = command("run", tiny_folder, *small, *flags, "--out", tmp_path)
    assert result.code == 0, result.err
    page = tmp_path / "tiny" / "default" / "report.html"
    assert page.stat().st_size < 6_000_000
