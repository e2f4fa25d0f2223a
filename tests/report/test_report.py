"""The page: what it shows, what it hides, what it names as missing."""

from __future__ import annotations

import html
import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from command import SMALL, SMALL_STAGES, Command, run_offline
from somatlas import DirectionSet
from somatlas.atlases import over_refusal
from somatlas.files import read_json, read_tensors
from somatlas.report.missing import missing_parts
from somatlas.report.page import refresh_report, write_report
from somatlas.report.prose import (
    over_refusal_text,
    search_text,
    stability_summary,
    stability_text,
)
from somatlas.runs.folder import Run, run_at
from somatlas.runs.settings import Config
from somatlas.searches.result import SearchResult

pytestmark = pytest.mark.figures
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
    run_offline("run", tiny_folder, *SMALL, *flags, "--out", place / "runs", figures=True)
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
    assert page.count("data:image/svg+xml") == 9 + 1
    csv = (run / "figures" / "map.csv").read_text()
    assert f"'{FORMULA}" in csv
    assert f",{FORMULA}" not in csv


def test_replies_are_hidden_unless_asked_for(command: Command, run: Path) -> None:
    assert "<h2>Replies</h2>" not in (run / "report.html").read_text()
    assert command("report", run, "--show-completions").code == 0
    page = (run / "report.html").read_text()
    assert "<h2>Replies</h2>" in page
    assert HOSTILE not in page


@pytest.fixture
def half_way(command: Command, tiny_folder: Path, tmp_path: Path) -> Path:
    """A run whose map is made and whose search is not, in folders that a shell would part."""
    place = ("--out", tmp_path / "my runs", "--name", "half way")
    for stage in ("represent", "layers", "map"):
        assert command(stage, tiny_folder, *SMALL_STAGES[stage], *place).code == 0
    folder = tmp_path / "my runs" / "tiny" / "half way"
    result = command("report", folder)
    assert result.code == 0, result.err
    return folder


def test_a_run_that_is_not_finished_shows_its_map_and_names_what_is_missing(
    half_way: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    page = html.unescape((half_way / "report.html").read_text())
    gaps = re.findall(r"Missing: (.*?)\. Run <code>(.*?)</code>", page)
    assert len(gaps) == 5
    for (what, _), word in zip(
        gaps, ("search", "replies", "verdicts", "costs", "neurons"), strict=True
    ):
        assert word in what
    (line,) = {command for _, command in gaps}
    named = ["--name", "half way", "--out", str(tmp_path / "my runs")]
    assert shlex.split(line) == ["somatlas", "run", str(tiny_folder), *named]
    hits = read_tensors(half_way / "map.safetensors")[0]["hits"].tolist()
    assert sorted(map(int, re.findall(r">n=(\d+)</text>", page))) == sorted(hits)
    assert "All neurons" not in page
    assert "data-neuron=" not in page
    assert "Where to cut" in page


def test_what_the_user_gave_is_not_missing(tmp_path: Path) -> None:
    config = Config(model="m", out=tmp_path, layer=3, ids=(0, 1, 2), method="pca")
    assert missing_parts(Run(config)) == [
        "the directions",
        "the replies to the test prompts",
        "the verdicts on the replies",
        "what ablation costs",
        "neurons, geometry and stability",
    ]


def test_the_command_names_no_folder_that_is_the_default_and_finds_one_that_was_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert Run(Config(model="m")).command("run") == "somatlas run m --name default"
    moved = Run(Config(model="m"), tmp_path / "else" / "m" / "other")
    assert moved.command("run") == f"somatlas run m --name other --out {tmp_path / 'else'}"


def test_a_page_is_made_again_only_where_there_is_one(whole: Path) -> None:
    run, page = run_at(whole), whole / "report.html"
    before = page.read_text()
    cost = json.loads((whole / "cost.json").read_text())
    cost["measures"][0]["name"] = "another measure"
    (whole / "cost.json").write_text(json.dumps(cost))
    assert refresh_report(run) == page
    assert "another measure" not in before
    assert "another measure" in page.read_text()
    page.unlink()
    assert refresh_report(run) is None
    assert not page.exists()


def test_the_page_says_why_borderline_prompts_were_refused_and_lists_them(whole: Path) -> None:
    atlas = json.loads((whole / "atlas.json").read_text())
    for i, row in enumerate(atlas["borderline"]):
        row |= {"place": i / 10, "refused": i > 2}
    places, refused = zip(*((r["place"], r["refused"]) for r in atlas["borderline"]), strict=True)
    atlas["over_refusal"] = over_refusal(places, refused)
    (whole / "atlas.json").write_text(json.dumps(atlas))
    page = html.unescape(write_report(run_at(whole)).read_text())
    assert "Of 6 borderline prompts" in page
    assert "probability 1.00 (0.5 is chance)" in page
    assert re.findall(r"place (\d\.\d\d)</span>", page) == ["0.50", "0.40", "0.30"]
    assert "over-refusal goes with looking like harmful prompts" in page
    atlas |= {"borderline": [], "over_refusal": None}
    (whole / "atlas.json").write_text(json.dumps(atlas))
    assert "Borderline prompts that were refused" not in write_report(run_at(whole)).read_text()


FOUND = {"refused": 4, "answered": 4, "place_refused": 0.6, "place_answered": 0.4, "auc": 0.7}


def test_what_chance_would_show_is_not_read_into_over_refusal() -> None:
    assert "by chance" in over_refusal_text(FOUND)
    many = {**FOUND, "refused": 40, "answered": 40}
    assert "association" in over_refusal_text(many)
    assert "does not go with" in over_refusal_text({**many, "auc": 0.3})
    none = {**FOUND, "refused": 0, "place_refused": None, "auc": None}
    assert over_refusal_text(none).endswith("the model refused none.")


def repeats(
    angle: float, cosine: float, rand: float | None = None, free: tuple[float, float] | None = None
) -> dict[str, Any]:
    """A record of stability; free: angle and cosine with SD projected out, where not the same."""

    def sides(angle: float, cosine: float, rand: float | None) -> dict[str, Any]:
        means = {
            "largest_angle": angle,
            "matched_cosine": cosine,
            "rank_cosine": cosine,
            "rand": rand,
        }
        one = {
            n: None if m is None else {"mean": m, "low": m - 0.05, "high": m + 0.05}
            for n, m in means.items()
        }
        return {"samples": one, "seeds": one}

    own = sides(angle, cosine, rand)
    without = sides(*(free or (angle, cosine)), None)
    return {**own, "without_sd": without, "repeats": 20, "share": 0.8, "k": 3, "nearest": True}


def test_no_more_is_concluded_from_stability_than_it_shows() -> None:
    """What counts is what is shared beyond SD, against the floor that shares most of it."""
    floors = {"shifted": repeats(85, 0.2), "partition": repeats(20, 0.9, free=(80, 0.4))}
    for own, words in (
        (repeats(20, 0.95, free=(85, 0.42)), "neither single directions nor their span"),
        (repeats(30, 0.95, free=(30, 0.44)), "read the span, not them"),
        (repeats(60, 0.8), "not what one of them means"),
        (repeats(20, 0.9, 0.3), "not what one of them means"),
        (repeats(20, 0.9, 0.8), "does not make them the model's own parts"),
    ):
        text = stability_text({"som": own, **floors})
        assert words in text
        assert "partition (means of a random partition" in text
        real = words.startswith(("not what", "does not"))
        head = stability_summary({"som": own, **floors})
        assert ("no more than directions that learn nothing" not in head) == real
    assert "the 3 directions by som nearest to the chosen" in text
    assert "What chance would give is not shown" in stability_text({"leace": repeats(20, 0.9)})
    assert "It learns nothing" in stability_text({"points": repeats(20, 0.9), **floors})
    single = {**repeats(5, 1), "without_sd": None}
    assert "the mean difference and nothing else" in stability_text({"sd": single, **floors})


def test_a_rank_that_names_another_direction_each_time_is_named() -> None:
    own = repeats(20, 0.9)
    own["samples"] = {**own["samples"], "rank_cosine": {"mean": 0.2, "low": 0.1, "high": 0.3}}
    text = stability_text({"som": own, "shifted": repeats(80, 0.3)})
    assert "Directions of the same rank have cosine 0.20" in text
    assert "not what one of them means" in text


def test_a_search_that_kept_no_trial_within_its_limit_says_so(whole: Path) -> None:
    search = SearchResult.read(whole)
    assert "limit" not in search_text(search)
    none, some = ({"limit": 0.05, "kept": kept} for kept in (0, 3))
    said = search_text(search.model_copy(update={"max_kl": none}))
    assert "No trial kept KL at or below 0.05" in said
    assert "of the 3 that kept KL" in search_text(search.model_copy(update={"max_kl": some}))


def test_a_folder_that_is_no_run(command: Command, tmp_path: Path) -> None:
    assert "is no run folder" in command.fails("report", tmp_path)


def in_browser(page: Path) -> tuple[str, str]:
    """The page's document after its scripts, and what the browser logged."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        assert "TESTS_NEED_CHROMIUM" not in os.environ, "the gate must have Chromium"
        pytest.skip("Chromium is not installed (Debian: apt install chromium)")
    line = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    line += ["--virtual-time-budget=3000", "--dump-dom", f"file://{page}"]
    result = subprocess.run(line, capture_output=True, text=True, timeout=120)
    return result.stdout, result.stderr


@pytest.mark.slow
def test_a_browser_draws_the_page_without_a_complaint(run: Path, half_way: Path) -> None:
    assert "CONSOLE" not in in_browser(half_way / "report.html")[1]
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


def test_one_direction_and_a_method_of_one(
    command: Command, tiny_folder: Path, tmp_path: Path
) -> None:
    flags = (*SMALL, "--out", tmp_path, "--method", "sd")
    assert "lower --k" in command.fails("run", tiny_folder, *flags)
    result = command("run", tiny_folder, *flags, "--k", "1", "--name", "one")
    assert result.code == 0, result.err


def test_the_headline_says_what_the_paired_test_says(whole: Path) -> None:
    """Intervals may overlap where the same prompts all differ one way."""
    evaluation = read_json(whole / "evaluation.json")
    for rate, condition in ((0.6, "sd"), (0.7, "md")):
        side = {"rate": rate, "low": rate - 0.1, "high": rate + 0.1, "n": 100}
        evaluation["test"][condition]["asr"] = side
    (test,) = (
        t
        for t in evaluation["paired"]
        if (t["outcome"], t["first"], t["second"]) == ("asr", "sd", "md")
    )
    for p, words in ((0.012, "Several directions do more"), (0.4, "do not tell them apart")):
        test |= {"difference": 0.1, "p_holm": p}
        (whole / "evaluation.json").write_text(json.dumps(evaluation))
        page = write_report(run_at(whole)).read_text()
        assert words in page


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
    assert 'class="cell"' in page
    assert 'class="cell chosen"' not in page  # ranks of a file are none of the map's
    assert "The set was found" not in page
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


def test_a_page_of_many_prompts_is_no_larger_than_one_of_some(
    command: Command, tiny_folder: Path, tmp_path: Path
) -> None:
    """Beyond 400 train prompts a side it shows a sample of them."""
    small = [x for x in SMALL if x not in ("--train-prompts", "24")]
    sizes = []
    for name, count in (("some", 700), ("many", 2100)):
        flags: list[str | Path] = ["--name", name]
        for side, word in (("positive", "break"), ("negative", "mend")):
            path = tmp_path / f"{side}.txt"
            path.write_text("\n".join(f"{word} the thing number {i:04}" for i in range(count)))
            flags += [f"--{side}", path]
        result = command("run", tiny_folder, *small, *flags, "--out", tmp_path)
        assert result.code == 0, result.err
        sizes.append((tmp_path / "tiny" / name / "report.html").stat().st_size)
    assert sizes[1] < 1.2 * sizes[0]
