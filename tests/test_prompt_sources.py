"""Prompts from files, hub data sets and splits."""

from __future__ import annotations

import json
import random
import sys
import types
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from somatlas import InputError
from somatlas.config import Config
from somatlas.prompts import SPLITS, Prompt
from somatlas.prompts.files import read_prompts
from somatlas.prompts.hub import hub_prompts, layer_rule_prompts, paper_prompts, shuffled
from somatlas.prompts.sources import configured_prompts, split_prompts

ROWS = [{"instruction": f"Ask {i}, “quoted”", "category": "a"} for i in range(3)]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    match path.suffix:
        case ".json":
            path.write_text(json.dumps(rows))
        case ".jsonl":
            path.write_text("\n".join(json.dumps(r) for r in rows) + "\n\n")
        case ".csv":
            lines = [f'"{r["instruction"]}",{r["category"]}' for r in rows]
            path.write_text("\ufeffinstruction,category\r\n" + "\r\n".join(lines) + "\r\n")
        case ".parquet":
            parquet.write_table(pa.Table.from_pylist(rows), path)
        case ".txt":
            path.write_text("\n".join(r["instruction"] for r in rows) + "\n\n")
    return path


@pytest.mark.parametrize("ending", ["json", "jsonl", "csv", "parquet"])
def test_every_format_gives_the_same_prompts(tmp_path: Path, ending: str) -> None:
    path = write(tmp_path / f"p.{ending}", ROWS)
    expected = [Prompt(r["instruction"], category="a") for r in ROWS]
    assert read_prompts(path) == expected
    assert read_prompts(path, "instruction") == expected


def test_text_files_hold_a_prompt_a_line(tmp_path: Path) -> None:
    path = write(tmp_path / "p.txt", ROWS)
    assert [p.text for p in read_prompts(path)] == [r["instruction"] for r in ROWS]


def test_json_may_be_a_list_of_strings_and_null_categories_are_empty(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('["x", "y"]')
    assert [p.text for p in read_prompts(tmp_path / "a.json")] == ["x", "y"]
    (tmp_path / "b.jsonl").write_text('{"prompt": "x", "category": null}')
    assert read_prompts(tmp_path / "b.jsonl") == [Prompt("x")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", "", "holds no prompts"),
        ("a.txt", "\n \n", "holds no prompts"),
        ("a.json", "{}", "must hold a JSON list"),
        ("a.json", "[1, 2]", "objects or strings"),
        ("a.json", "[", "cannot be read"),
        ("a.jsonl", '{"prompt": "a"}\n{"pro', "cannot be read"),
        ("a.jsonl", '{"name": "a"}', "no column .*it has name"),
        ("a.csv", "prompt\n\n", "holds no prompts"),
        ("a.parquet", "PAR1 no", "cannot be read"),
        ("a.docx", "x", "not one of json"),
    ],
)
def test_bad_files_are_refused_in_one_sentence(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        read_prompts(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_missing_column_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_prompts(tmp_path / "none.txt")
    path = write(tmp_path / "p.jsonl", ROWS)
    with pytest.raises(InputError, match=r"no column 'goal'.*--column"):
        read_prompts(path, "goal")


def test_splits_are_disjoint_complete_and_decided_by_the_seed() -> None:
    prompts = [Prompt(str(i)) for i in range(50)]
    splits = split_prompts([*prompts, prompts[0]], seed=1)
    assert [len(splits[s]) for s in SPLITS] == [30, 10, 10]
    assert {p for s in SPLITS for p in splits[s]} == set(prompts)
    assert split_prompts(prompts, seed=1) == splits
    assert split_prompts(prompts, seed=2) != splits


def sides(tmp_path: Path, positive: list[str], negative: list[str]) -> dict[str, str]:
    for name, texts in (("positive", positive), ("negative", negative)):
        (tmp_path / f"{name}.json").write_text(json.dumps(texts))
    return {name: str(tmp_path / f"{name}.json") for name in ("positive", "negative")}


def test_given_files_replace_the_bundled_set(tmp_path: Path) -> None:
    files = sides(tmp_path, [f"p{i}" for i in range(20)], [f"n{i}" for i in range(20)])
    prompts = configured_prompts(Config(**files))
    assert {p.text[0] for s in SPLITS for p in prompts.positive[s]} == {"p"}
    assert {p.text[0] for s in SPLITS for p in prompts.negative[s]} == {"n"}
    assert not any(prompts.borderline.values())


def test_one_class_is_refused(tmp_path: Path) -> None:
    files = sides(tmp_path, [f"p{i}" for i in range(20)], [f"n{i}" for i in range(20)])
    with pytest.raises(InputError, match="--positive is given without --negative"):
        configured_prompts(Config(positive=files["positive"]))
    same = sides(tmp_path, [f"p{i}" for i in range(20)], [f"p{i + 19}" for i in range(20)])
    with pytest.raises(InputError, match=r"1 prompts stand in both.*'p19'"):
        configured_prompts(Config(**same))
    few = sides(tmp_path, ["a", "b"], ["c", "d"])
    with pytest.raises(InputError, match="fewer than 10 different prompts"):
        configured_prompts(Config(**few))


class FakeHub:
    """Stands in for the package datasets: a table by name and split."""

    def __init__(self, tables: dict[str, list[dict[str, Any]]]) -> None:
        self.tables = tables

    def load_dataset(self, name: str, split: str, data_files: str | None = None) -> Any:
        key = data_files.rsplit("/", 1)[1] if data_files else f"{name}:{split}"
        if key not in self.tables:
            raise ConnectionError("no\nroute")
        return self.tables[key]

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        module = types.ModuleType("datasets")
        module.load_dataset = self.load_dataset  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "datasets", module)


def test_hub_data_sets_are_named_with_their_split(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeHub({"me/set:train": [{"text": "t"}], "me/set:dev": [{"text": "d"}]}).install(monkeypatch)
    assert [p.text for p in hub_prompts("me/set", None)] == ["t"]
    assert [p.text for p in hub_prompts("me/set:dev", "text")] == ["d"]


def test_an_unreachable_hub_gives_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeHub({}).install(monkeypatch)
    with pytest.raises(InputError, match="'me/set' cannot be loaded from the hub") as caught:
        hub_prompts("me/set", None)
    assert "\n" not in str(caught.value)


def test_without_the_extra_the_hub_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r"pip install 'somatlas\[hub\]'"):
        hub_prompts("me/set", None)


ALPACA_SIZE = 6400


@pytest.fixture
def papers_hub(monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    """Made tables of the shapes that the paper's sets have."""
    kinds = ("standard", "copyright", "standard")
    behaviours = [
        {"Behavior": f"b{i}", "FunctionalCategory": kind, "SemanticCategory": "c"}
        for i, kind in enumerate(kinds)
    ]
    styles = ("base", "caesar", "morse", "slang")
    hub = FakeHub(
        {
            "sorry-bench/sorry-bench-202406:train": [
                {"turns": [f" s{i}\n"], "category": i % 45, "prompt_style": styles[i % 4]}
                for i in range(9000)
            ],
            "tatsu-lab/alpaca:train": [
                {
                    "instruction": " " if i == 7 else f"a{i % 6390}",
                    "input": "x" if i % 3 == 0 else "",
                }
                for i in range(ALPACA_SIZE)
            ],
            "harmbench_behaviors_text_val.csv": behaviours,
            "harmbench_behaviors_text_test.csv": behaviours,
            **{
                f"{side}_{split}.json": [
                    {"instruction": f"{side} {split} {i}", "category": None} for i in range(200)
                ]
                for side in ("harmful", "harmless")
                for split in ("train", "val")
            },
        }
    )
    hub.install(monkeypatch)
    return hub


def test_the_papers_train_rows_come_in_the_papers_order(papers_hub: FakeHub) -> None:
    """The first rows that the filter leaves, then shuffled: not shuffled and then the first."""
    sorry = papers_hub.tables["sorry-bench/sorry-bench-202406:train"]
    sorry = [r for r in sorry if r["prompt_style"] not in ("caesar", "morse")][:4000]
    alpaca = papers_hub.tables["tatsu-lab/alpaca:train"][:6000]
    prompts = paper_prompts()
    positive = [(p.text, p.category) for p in prompts.positive["train"]]
    assert positive == [(r["turns"][0], str(r["category"])) for r in shuffled(sorry)]
    assert len(positive) == 4000
    expected = [r["instruction"] for r in shuffled(alpaca) if r["instruction"].strip()]
    assert [p.text for p in prompts.negative["train"]] == expected
    assert len(expected) == 5999  # rows with an input are kept, the blank one is not


@pytest.mark.parametrize("count", [4000, 6000])
def test_the_order_is_that_of_the_library_the_paper_uses(count: int) -> None:
    order = shuffled(range(count))
    if count == 4000:  # as datasets 5.2 gives them: where it is not installed too
        assert order[:5] == [1144, 1690, 1586, 2056, 2708]
    datasets = pytest.importorskip("datasets")
    assert datasets.Dataset.from_dict({"i": range(count)}).shuffle(seed=42)["i"][:] == order


def test_harmless_val_and_test_rows_are_new_and_complete(papers_hub: FakeHub) -> None:
    prompts = paper_prompts()
    assert [p.text for p in prompts.positive["val"]] == ["b0", "b2"]
    assert [p.text for p in prompts.negative["val"]] == ["a6001", "a6002"]
    assert [p.text for p in prompts.negative["test"]] == ["a6004", "a6005"]
    papers_hub.tables["tatsu-lab/alpaca:train"][6001]["instruction"] = "a5"  # one that trains
    assert [p.text for p in paper_prompts().negative["val"]] == ["a6002", "a6004"]


def test_the_layer_rules_own_prompts_are_drawn_as_the_paper_draws_them(papers_hub: FakeHub) -> None:
    prompts = layer_rule_prompts()
    rng = random.Random(42)
    for split, count in (("train", 128), ("val", 32)):
        for name, side in (("harmful", prompts.positive), ("harmless", prompts.negative)):
            rows = [f"{name} {split} {i}" for i in range(200)]
            assert [p.text for p in side[split]] == rng.sample(rows, count)
    papers_hub.tables["harmful_val.json"] = papers_hub.tables["harmful_val.json"][:31]
    with pytest.raises(InputError, match=r"31 prompts, fewer than the 32.*--layer-data own"):
        layer_rule_prompts()
