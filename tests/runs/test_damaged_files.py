"""Files of a finished run that are damaged: every reader says so in one sentence."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from safetensors.torch import save_file

from command import SMALL, Command
from somatlas import InputError, open_run
from somatlas.files import read_tensors
from somatlas.runs.stages_file import read_stages

Damage = Callable[[Any], Any]


@pytest.fixture(scope="module")
def run(finished_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, of which each test mends what it damages."""
    runs = tmp_path_factory.mktemp("damaged") / "runs"
    shutil.copytree(finished_runs, runs)
    return runs / "tiny" / "default"


@pytest.fixture
def damaged(run: Path) -> Iterator[Callable[[str, Damage], Path]]:
    """Damages a JSON or JSONL file of the run: what it holds is given and taken."""
    kept: dict[Path, bytes] = {}

    def damage(name: str, change: Damage) -> Path:
        path = run / name
        kept[path] = path.read_bytes()
        if path.suffix == ".jsonl":
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            path.write_text("".join(json.dumps(row) + "\n" for row in change(rows)))
        else:
            path.write_text(json.dumps(change(json.loads(path.read_text()))))
        return run

    yield damage
    for path, content in kept.items():
        path.write_bytes(content)


def without(name: str) -> Damage:
    """The first row lacks a field."""
    return lambda rows: [{n: v for n, v in rows[0].items() if n != name}, *rows[1:]]


def within(*place: Any, value: Any) -> Damage:
    """A value in place of another somewhere inside."""

    def change(content: Any) -> Any:
        inner = content
        for step in place[:-1]:
            inner = inner[step]
        inner[place[-1]] = value
        return content

    return change


def short(content: Any) -> Any:
    """A direction of the atlas has no cosine with SD."""
    content["cosines_with_single"].pop()
    return content


BASE = "completions/base.jsonl"
CASES: list[tuple[str, Damage, tuple[str, ...], str]] = [
    (BASE, without("reply"), ("label",), "reply: field required"),
    (BASE, without("kind"), ("label",), "line 1 of .* is no completion .kind: field"),
    (BASE, lambda rows: [None, *rows], ("label",), "line 1 of .* is no completion .it is None"),
    (BASE, lambda rows: [], ("label",), "holds no completion: make it again"),
    (BASE, within(0, "more", value=1), ("label",), "more: no such field is known"),
    ("stages.json", lambda _: None, ("report",), "stages.json is not as this version"),
    ("stages.json", lambda _: [], ("compare",), "stages.json is not as this version"),
    ("stages.json", within("judge", value=None), ("report",), "judge: input should be"),
    ("stages.json", within("judge", value={"seconds": 1}), ("run",), "judge.settings: field"),
    ("stages.json", within("judge", "seconds", value="x"), ("run",), "judge.seconds: input"),
    ("stages.json", within("represent", "model", value=3), ("report",), "represent.model"),
    ("verdicts.jsonl", lambda _: [], ("compare",), "holds no verdict: make it again"),
    ("verdicts.jsonl", lambda rows: rows[:3], ("compare",), "no verdict on condition"),
    ("verdicts.jsonl", within(0, "judges", value=["x"]), ("agree",), "judges: input should"),
    ("verdicts.jsonl", within(0, "judges", "keyword", value={}), ("agree",), "is no verdict"),
    ("verdicts.jsonl", within(0, "verdict", value="maybe"), ("compare",), "'maybe', which is no"),
    ("atlas.json", short, ("report",), "cosines of .* directions must be"),
    ("atlas.json", within("cosines", 0, value=[1.0]), ("report",), "cosines of .* directions"),
    ("evaluation.json", within("test", value={}), ("compare",), "nothing of condition 'base'"),
    ("ablate.json", within("kl_by_reply", value={}), ("compare",), "nothing of condition"),
    ("evaluation.json", within("test", "md", "asr", value={}), ("compare",), "test: md.asr.rate"),
    ("evaluation.json", within("paired", 0, "low", value=None), ("report",), "paired: 0.low"),
    ("search.json", within("trials", 0, "kl", value="x"), ("compare",), "trials: 0.kl: input"),
    ("search.json", within("selection", value={}), ("report",), "selection: asr: field"),
    ("cost.json", within("measures", 0, value={}), ("report",), "measures: 0.name: field"),
    ("atlas.json", within("steps", 0, "asr", value=None), ("report",), "steps: 0.asr: input"),
    ("atlas.json", within("knobs", "sd", value={}), ("report",), "knobs: sd.refusal: field"),
    ("atlas.json", within("contrast", "base", value=None), ("report",), "are not compared"),
    ("atlas.json", within("steps", value=[]), ("report",), "steps: .* at least 1 item"),
    ("atlas.json", within("steps", 1, "harmless", 0, value=[1.0]), ("report",), "1.harmless.0"),
    ("atlas.json", within("plane", "centroids", value={}), ("report",), "plane: centroids.harmful"),
    ("atlas.json", within("plane", "ends", value=[]), ("report",), "ends must be those of"),
    ("atlas.json", within("stability", "som", "k", value=None), ("report",), "stability: som.k: "),
    ("atlas.json", within("stability", "sd", "without_sd", value={}), ("report",), "sd.without_sd"),
    ("atlas.json", within("space", "edges", value=[[0, 99]]), ("report",), "must join two of"),
    ("atlas.json", within("borderline", 0, value={}), ("report",), "borderline: 0.prompt: field"),
    ("atlas.json", within("neurons", 0, "categories", value={"x": 3}), ("report",), "categories.x"),
    (
        "cost.json",
        within("measures", 0, "conditions", "md", "d_low", value=None),
        ("report",),
        "d_l",
    ),
    ("ablate.json", within("conditions", value={}), ("report",), "conditions must have base"),
    ("evaluation.json", within("judge", value={}), ("report",), "judge: dictionary should have"),
    (
        "evaluation.json",
        within("search", "selection_n", value=None),
        ("report",),
        "selection_n and",
    ),
    ("evaluation.json", within("search", "max_kl", value={}), ("report",), "max_kl.limit: field"),
    ("evaluation.json", within("agreement", value=[{}]), ("report",), "agreement: 0.first: field"),
    ("evaluation.json", within("systems", value={"a": {"md": 1}}), ("report",), "systems: a.md"),
    ("evaluation.json", within("published", value={}), ("report",), "published: ranks: field"),
    (
        "evaluation.json",
        within("resolvable", "difference", value=None),
        ("report",),
        "as there are",
    ),
    ("map.json", lambda _: [], ("report",), "map.json is not as this version"),
    ("map.json", within("quantization", value=None), ("report",), "quantization: input"),
]


@pytest.mark.parametrize(("name", "damage", "line", "said"), CASES)
def test_a_damaged_file_is_told_in_one_sentence(
    damaged: Callable[[str, Damage], Path],
    command: Command,
    name: str,
    damage: Damage,
    line: tuple[str, ...],
    said: str,
    tiny_folder: Path,
) -> None:
    run = damaged(name, damage)
    if line == ("run",):
        line = ("run", str(tiny_folder), *SMALL, "--out", str(run.parents[1]))
    else:
        line = (*line, str(run))
    message = command.fails(*line)
    assert name in message
    assert re.search(said, message), message


def test_replies_that_the_verdicts_are_not_of_are_no_frame(
    damaged: Callable[[str, Damage], Path],
) -> None:
    run = damaged(BASE, lambda rows: rows[1:])
    with pytest.raises(InputError, match="others than its verdicts are of"):
        open_run(run).to_frame()


@pytest.mark.parametrize("name", ["directions", "map", "single_direction"])
@pytest.mark.parametrize("text", ["[]", "null", "3", "{", '{"grid": 4}'])
def test_metadata_that_are_no_texts_are_refused(
    run: Path, tmp_path: Path, name: str, text: str
) -> None:
    path = tmp_path / f"{name}.safetensors"
    with safe_open(run / path.name, framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    save_file(tensors, path, metadata={"somatlas": text})
    with pytest.raises(InputError, match="is no JSON object of texts"):
        read_tensors(path)


def test_what_is_whole_is_read_as_it_is(run: Path) -> None:
    stages = read_stages(run)
    assert stages == json.loads((run / "stages.json").read_text())
    contents = open_run(run)
    rows = [json.loads(line) for line in (run / BASE).read_text().splitlines()]
    assert [one.reply for one in contents.completions["base"]] == [row["reply"] for row in rows]
    assert contents.to_frame().shape[0] == len(contents.verdicts)
