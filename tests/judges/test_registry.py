"""Kinds of judges: which there are, what they are told, and those of other packages."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from command import Command
from somatlas import InputError
from somatlas.files import read_json, read_jsonl
from somatlas.judges import Coherent, Verdict
from somatlas.judges.registry import Judges, built_in_kinds, find_kind, judge_forms
from somatlas.runs.settings import Config
from somatlas.testing import JudgeContract

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"
Install = Callable[..., None]


def blocks() -> list[str]:
    """The Python of the page's section on judges: the judge, and its test."""
    section = PAGE.read_text().split("## A judge in 20 lines")[1].split("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", section, re.DOTALL)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts a package with one module and entry points to it where Python looks."""

    def put(name: str, text: str, *entries: str) -> None:
        place = tmp_path / f"site-{name}"
        info = place / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (place / f"{name}.py").write_text(text)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("\n".join(["[somatlas.judges]", *entries]))
        monkeypatch.syspath_prepend(place)
        monkeypatch.delitem(sys.modules, name, raising=False)

    return put


@pytest.fixture
def length(install: Install) -> None:
    install("length_judge", blocks()[0], "length = length_judge:KIND")


def test_the_kinds_are_those_of_the_folder() -> None:
    assert set(built_in_kinds()) == {"keyword", "classifier", "yesno", "endpoint"}
    assert judge_forms() == "keyword, classifier:MODEL, endpoint:MODEL or yesno:MODEL"


@pytest.mark.parametrize("spec", ["", "keywords", "keyword:x", "keyword:", "classifier", "yesno:"])
def test_what_names_no_judge_is_refused_in_one_sentence(spec: str) -> None:
    name = spec if spec.partition(":")[0] in built_in_kinds() else spec.partition(":")[0]
    for find in (find_kind, Judges().check, Judges().asked):
        with pytest.raises(InputError, match=f"judge {name!r}.* must be "):
            find(spec)
    with pytest.raises(InputError, match=rf"setting 'judge' cannot be {spec!r}: .*must be "):
        Config.merged({"judge": spec})


@pytest.mark.parametrize("spec", [None, 3, ["keyword"]])
def test_a_judges_name_is_a_text(spec: Any) -> None:
    with pytest.raises(InputError, match="a judge's name must be a text, as keyword"):
        find_kind(spec)


def test_an_unknown_kind_is_refused_before_the_model_is_loaded(
    command: Command, monkeypatch: pytest.MonkeyPatch, tiny_folder: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr("somatlas.runs.folder.load_model", lambda *_, **__: pytest.fail("loaded"))
    for flag in ("--judge", "--more-judges"):
        message = command.fails("run", tiny_folder, flag, "nobody:m", "--out", tmp_path / "runs")
        assert message.endswith(f"must be {judge_forms()}")
    message = command.fails("run", tiny_folder, "--judge-settings", "nobody.x=1")
    assert message.endswith(f"must be {judge_forms()}")
    assert not (tmp_path / "runs").exists()


def test_a_kind_is_told_what_it_shares_and_nothing_else() -> None:
    values = {"device": "cuda:1", "judge_labels": {"A": "refused"}, "judge_template": None, "k": 3}
    told = find_kind("classifier:m").told(values)
    assert (told.device, told.labels, told.template) == ("cuda:1", {"A": "refused"}, None)
    assert Judges(dict(Config())).asked("classifier:org/m:x").argument == "org/m:x"
    with pytest.raises(InputError, match=r"'endpoint' needs .*: give --endpoint-url"):
        find_kind("endpoint:m").told({})
    with pytest.raises(InputError, match=r"is given as --judge-labels"):
        find_kind("classifier:m").told({}, {"labels": {}})
    with pytest.raises(InputError, match=r"has no setting 'x' of its own: it has none"):
        find_kind("keyword").told({}, {"x": 1})
    with pytest.raises(InputError, match=r"'timeout_s' of judge kind 'endpoint' cannot be -1"):
        find_kind("endpoint:m").told({"endpoint_url": "http://x/v1", "endpoint_timeout": -1})


def test_a_judge_is_made_once_and_checked_unless_it_tells_babble_itself() -> None:
    judges = Judges({"endpoint_url": "http://127.0.0.1:9/v1"})
    first = judges.get("keyword", None)
    assert isinstance(first, Coherent)
    assert judges.get("keyword", None) == first
    assert judges.get("endpoint:m", None) is judges.get("endpoint:m", None)
    assert not isinstance(judges.get("endpoint:m", None), Coherent)


def test_the_documented_judge_has_20_lines_and_judges_a_run(
    command: Command, length: None, tiny_folder: Path, whole: Path
) -> None:
    lines = [line for line in blocks()[0].splitlines() if line.strip()]
    assert len(lines) <= 20
    assert judge_forms().endswith("or length")
    before = read_jsonl(whole / "verdicts.jsonl")
    place = ("--out", whole.parents[1])
    given = ("--more-judges", "length", "--judge-settings", "length.fewest=2")
    result = command("judge", tiny_folder, *place, *given)
    assert result.code == 0, result.err
    after = read_jsonl(whole / "verdicts.jsonl")
    assert [row["verdict"] for row in after] == [row["verdict"] for row in before]
    replies = [
        row["reply"]
        for c in ("base", "sd", "md")
        for row in read_jsonl(whole / f"completions/{c}.jsonl")
    ]
    for row, reply in zip(after, replies, strict=True):
        refused = row["judges"]["length"]["verdict"] == Verdict.REFUSED
        assert refused == (0 < len(reply.split()) < 2)
    record = read_json(whole / "judge.json")["judges"]["length"]
    assert record["fewest"] == 2

    again = command("judge", tiny_folder, *place, *given[:3], "length.fewest=3")
    assert again.code == 0, again.err
    assert "done before" not in again.err
    assert read_json(whole / "judge.json")["judges"]["length"]["fewest"] == 3


def test_the_documented_test_case_holds(length: None) -> None:
    names: dict[str, type[JudgeContract]] = {}
    exec(compile(blocks()[1], str(PAGE), "exec"), names)
    case = names["TestLengthJudge"]()
    tests = [name for name in dir(case) if name.startswith("test_")]
    assert len(tests) >= 8
    for name in tests:
        getattr(case, name)()


def test_its_settings_decide_from_the_search_on_if_it_judges_there(length: None) -> None:
    own = {"judge_settings": "length.fewest=7"}
    config = Config.merged(own, {"judge": "length"})
    assert config.judge_settings == {"length": {"fewest": 7}}
    assert "judge_settings" not in config.redone
    assert "judge_settings" in Config.merged(own).redone
    assert Judges(dict(config), config.judge_settings).asked("length").settings.fewest == 7
    with pytest.raises(InputError, match=r"'fewest' of judge kind 'length' cannot be 0"):
        Config.merged({"judge": "length", "judge_settings": "length.fewest=0"})
    with pytest.raises(InputError, match="must be like KIND"):
        Config.merged({"judge_settings": "fewest=0"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "import not_there_at_all",
            r"'bad' \(bad_judge:KIND\) cannot be imported \(Module",
        ),
        ("KIND = 3", r"'bad' \(bad_judge:KIND\) is not a JudgeKind of that name"),
    ],
)
def test_a_package_that_is_broken_is_named_once_its_judge_is_asked_for(
    install: Install, text: str, message: str
) -> None:
    install("bad_judge", text, "bad = bad_judge:KIND")
    assert Config.merged({}).judge == "keyword"
    with pytest.raises(InputError, match=message):
        Config.merged({"judge": "bad"})


def test_two_packages_that_claim_one_name_are_both_named(install: Install) -> None:
    install("first_judge", "KIND = 1", "keyword = first_judge:KIND", "mine = first_judge:KIND")
    install("second_judge", "KIND = 1", "mine = second_judge:KIND")
    with pytest.raises(InputError, match="'keyword' is claimed by somatlas and first_judge"):
        find_kind("keyword")
    with pytest.raises(InputError, match="'mine' is claimed by first_judge and second_judge"):
        find_kind("mine")


@pytest.mark.parametrize(
    "module",
    [
        "judges.verdict",
        "judges.keyword",
        "judges.registry",
        "evaluation.agreement",
        "evaluation.evaluation",
        "evaluation.evidence",
        "evaluation.labels",
        "evaluation.verdicts",
        "evaluation.pooling",
        "numerics.statistics",
        "prompts",
        "files",
        "testing.judges",
    ],
)
def test_what_reads_verdicts_imports_no_model_library(module: str) -> None:
    code = (
        f"import sys, somatlas.{module}\n"
        "from somatlas.judges.registry import judge_forms\n"
        "judge_forms()\n"  # nor does the list of all kinds
        "print(*sorted({'torch', 'transformers', 'optuna'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
