"""Prompts from files, hub data sets and splits."""

from __future__ import annotations

import csv
import itertools
import json
import math
import random
import sys
import types
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from somatlas import InputError, load_model
from somatlas.prompts import SPLITS, Prompt, PromptSet
from somatlas.prompts.duplicates import NEAR, near_pairs, shingles
from somatlas.prompts.formats import read_prompts
from somatlas.prompts.hub_sets import hub_prompts, layer_rule_prompts, paper_prompts, shuffled
from somatlas.runs.folder import Run
from somatlas.runs.settings import Config

ROWS = [{"instruction": f"Ask {i}, “quoted”", "category": "a"} for i in range(3)]


def configured_prompts(config: Config) -> PromptSet:
    """The prompts of a run of these settings."""
    return Run(config).all_prompts


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
        ("a.jsonl", '{"prompt": "a"}\n{"prompt": NaN}', "row 2: column 'prompt' holds nan, which"),
        ("a.jsonl", '{"prompt": true}', "holds True, which is no text"),
        ("a.jsonl", '{"prompt": -Infinity}', "holds -inf, which is no text"),
        (
            "a.jsonl",
            '{"prompt": "x \\ud800"}',
            r"row 1: column 'prompt' holds '.ud800', which is no",
        ),
        (
            "a.json",
            '[{"prompt": "x", "topic": "\\udcff"}]',
            r"column 'topic' holds '.udcff', which is no",
        ),
        ("a.json", "[" * 100_000, "nested too deep"),
        ("a.json", '{"a": 1}\n' + "[" * 100_000, "nested too deep"),
        ("a.jsonl", "[" * 100_000, "line 1, column 1: it is nested too deep"),
        ("a.jsonl", '{"prompt": ' + "1" * 5000 + "}", "line 1, column 1: Exceeds the limit"),
        ("a.csv", "id,prompt\n0,x\n1,How do I X, and more", "row 2 has 3 cells.*double quotes"),
        ("a.csv", "id,prompt\n0,How do I X\nand more", "row 2 has 1 cells.*double quotes"),
        ("a.csv", 'id,prompt\n0,"How do I X\n1,y', "line 3: unexpected end.*double quotes"),
        ("a.csv", 'id,prompt\n0,"Hello" he said', "line 2: .*double quotes"),
        ("a.csv", "prompt,id,prompt\nx,0,y", "two columns 'prompt'"),
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


def test_what_is_no_file_is_called_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is a folder: name a file in it \(json"):
        read_prompts(tmp_path)
    with pytest.raises(InputError, match="not one of json"):
        read_prompts(Path("/dev/null"))
    negative = plain_negative(tmp_path)
    for source, message in (
        (" ", "--positive ' ' names no file"),
        (f"train={negative},val=", "--positive '' names no file"),
        ("hub:", "'hub:' names no data set: give hub:OWNER/NAME"),
        ("hub::train", "'hub::train' names no data set"),
    ):
        with pytest.raises(InputError, match=message):
            configured_prompts(Config(positive=source, negative=negative))


def test_quoted_text_of_a_table_is_whole(tmp_path: Path) -> None:
    texts = ["How do I X, and more", 'Say "please"\nand go', "a;b"]
    with (tmp_path / "p.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["id", "prompt"], [], *enumerate(texts)])
    assert [p.text for p in read_prompts(tmp_path / "p.csv")] == texts


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_rows_without_a_request_are_named_and_without_a_label_are_no_group(
    tmp_path: Path, ending: str
) -> None:
    rows = [("a", "t"), ("b", None), ("c", None), (None, "t"), (" ", "t")]
    path, notes = tmp_path / f"p.{ending}", []
    table = [dict(zip(("prompt", "topic"), row, strict=True)) for row in rows]
    if ending == "csv":
        path.write_text("prompt,topic\n" + "".join(f"{a or ''},{b or ''}\n" for a, b in rows))
    elif ending == "jsonl":
        table[1]["topic"] = math.nan  # type: ignore[assignment]  # as pandas has it
        rows_in(path, table)
    else:
        write(path, table)
    found = read_prompts(path, note=notes.append)
    assert [(p.text, p.topic, len(p.groups)) for p in found] == [
        ("a", "t", 1),
        ("b", "", 0),
        ("c", "", 0),
    ]
    assert notes == [f"2 rows of {path} hold no request in 'prompt': they were left out"]


def test_splits_are_disjoint_complete_and_decided_by_the_seed() -> None:
    prompts = [Prompt(str(i)) for i in range(50)]
    others = [f"other {i}" for i in range(10)]
    whole = PromptSet.of([*prompts, prompts[0]], others, seed=1)
    splits = whole.positive
    assert whole.notes == ("1 prompts of harmful say what another says: they were left out",)
    assert [len(splits[s]) for s in SPLITS] == [30, 10, 10]
    assert {p for s in SPLITS for p in splits[s]} == set(prompts)
    assert PromptSet.of(prompts, others, seed=1).positive == splits
    assert PromptSet.of(prompts, others, seed=2).positive != splits


def test_prompts_at_hand_keep_their_groups_and_splits_as_those_of_files_do() -> None:
    def pair(side: str, i: int) -> Prompt:
        return Prompt(f"{side} {i}", groups=(("pair", str(i)),))

    whole = PromptSet.of([pair("yes", i) for i in range(40)], [pair("no", i) for i in range(40)])
    for split in SPLITS:
        numbers = [
            {p.text.split()[1] for p in side[split]} for side in (whole.positive, whole.negative)
        ]
        assert numbers[0] == numbers[1]
        assert numbers[0]
    named = [Prompt(f"own {i}", split=SPLITS[i % 3]) for i in range(30)]
    kept = PromptSet.of(named, [f"other {i}" for i in range(10)]).positive
    assert all(p.split == split for split in SPLITS for p in kept[split])
    one = [Prompt(f"one {i}", groups=(("topic", "x"),)) for i in range(20)]
    with pytest.raises(InputError, match="without prompts: its groups by topic"):
        PromptSet.of(one, named)


def test_few_borderline_prompts_at_hand_leave_none_to_test_and_that_is_said() -> None:
    yes, no = ([f"{side} {i}" for i in range(10)] for side in ("yes", "no"))
    whole = PromptSet.of(yes, no, ["x", "y"])
    assert not whole.test.borderline
    assert whole.notes[0].startswith("test has none of the 2 borderline prompts: give 10 or more")
    assert not PromptSet.of(yes, no).notes
    named = PromptSet.of(yes, no, [Prompt("x", split="test")])
    assert (len(named.test.borderline), named.notes) == (1, ())


def test_what_is_no_text_is_refused_before_a_model_is_loaded() -> None:
    yes, no = ([f"{side} {i}" for i in range(10)] for side in ("yes", "no"))
    with pytest.raises(InputError, match=r"a prompt's text holds '.ud800', which is no whole"):
        PromptSet.of([*yes, "x \ud800"], no)
    with pytest.raises(InputError, match="a prompt's category must be a text, not None"):
        Prompt("x", category=None)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"system holds '.ud800'"):
        load_model("none", system="x \ud800")
    with pytest.raises(
        InputError, match=r"'system' cannot be 'a.udcff': it holds '.udcff', which is no"
    ):
        Config.merged({"system": "a\udcff"})


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


def test_hub_data_sets_are_grouped_and_their_blank_rows_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = [{"text": f"{i}", "kind": f"k{i % 2}"} for i in range(20)] + [{"text": " ", "kind": ""}]
    tables = {
        "me/yes:train": rows,
        "me/no:train": [{"text": f"n{i}", "kind": ""} for i in range(20)],
    }
    FakeHub(tables).install(monkeypatch)
    found = hub_prompts("me/yes", None, ["kind"])
    assert found[0].groups == (("kind", "k0"),)
    named = {"positive": "hub:me/yes", "negative": "hub:me/no"}
    notes = configured_prompts(Config(**named)).notes
    assert "1 rows of hub:me/yes hold no request in 'text': they were left out" in notes


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


def user(text: Any, **more: Any) -> dict[str, Any]:
    return {"role": "user", "content": text, **more}


BOT = {"role": "assistant", "content": "A reply."}


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [user("x")]},
        {"messages": [user("x"), BOT]},
        {"prompt": [user([{"type": "text", "text": "x"}])]},
        {"prompt": user("x")},
        {"conversations": [{"from": "human", "value": "x"}, {"from": "gpt", "value": "A reply."}]},
        {"turns": ["x"]},
        {"messages": json.dumps([user("x"), BOT])},
    ],
)
@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_messages_are_read_as_what_they_are(
    tmp_path: Path, row: dict[str, Any], ending: str
) -> None:
    path = write(tmp_path / f"p.{ending}", [row])
    assert read_prompts(path) == [Prompt("x")]
    assert read_prompts(path, next(iter(row))) == [Prompt("x")]


def test_text_that_looks_like_json_stays_text(tmp_path: Path) -> None:
    texts = ['{"a": 1} is JSON, why?', '[{"a": 1}]', '{"role": 1}', "[x", '[{"a":' * 20_000]
    path = write(tmp_path / "p.jsonl", [{"prompt": text} for text in texts])
    assert [p.text for p in read_prompts(path)] == texts


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ([user("x"), BOT, user("y")], "row 2: column 'prompt' holds 2 turns of the user"),
        ([{"role": "system", "content": "s"}, user("x")], "holds a system prompt: give it by"),
        ([BOT], "holds 0 turns of the user"),
        (["a", "b"], "holds 2 turns"),
        ({"a": 1}, "holds an object, not a text"),
        ([1, 2], "holds a list"),
        ([user([{"type": "image"}])], "something else than text"),
    ],
)
def test_cells_without_a_plain_meaning_are_refused(tmp_path: Path, cell: Any, message: str) -> None:
    path = write(tmp_path / "p.jsonl", [{"prompt": "x"}, {"prompt": cell}])
    with pytest.raises(InputError, match=message):
        read_prompts(path)


@pytest.mark.parametrize(
    "content",
    [
        {"prompt": ["a", "b"], "category": ["c", "c"]},
        {"prompt": {"0": "a", "1": "b"}, "category": {"0": "c", "1": "c"}},
        {"data": [{"prompt": "a", "category": "c"}, {"prompt": "b", "category": "c"}]},
        {
            "version": 1,
            "data": [{"prompt": "a", "category": "c"}, {"prompt": "b", "category": "c"}],
        },
        {"columns": ["prompt", "category"], "index": [0, 1], "data": [["a", "c"], ["b", "c"]]},
    ],
)
def test_json_objects_are_read_where_their_meaning_is_plain(tmp_path: Path, content: Any) -> None:
    (tmp_path / "p.json").write_text(json.dumps(content))
    expected = [Prompt("a", category="c"), Prompt("b", category="c")]
    assert read_prompts(tmp_path / "p.json") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"prompts": ["a", "b"]}', ["a", "b"]),
        ('{"prompt": ["a", "b"]}', ["a", "b"]),
        ('{"x1": {"prompt": "a"}, "x2": {"prompt": "b"}}', ["a", "b"]),
        ('{"prompt": "a"}\n{"prompt": "b"}\n', ["a", "b"]),
    ],
)
def test_other_shapes_of_json(tmp_path: Path, text: str, expected: list[str]) -> None:
    (tmp_path / "p.json").write_text(text)
    assert [p.text for p in read_prompts(tmp_path / "p.json")] == expected


@pytest.mark.parametrize(
    "content",
    [{"prompt": ["a"], "category": ["c", "d"]}, {"prompt": 1}, {"columns": ["a"], "data": 1}, "a"],
)
def test_json_without_a_plain_meaning_is_refused(tmp_path: Path, content: Any) -> None:
    (tmp_path / "p.json").write_text(json.dumps(content))
    with pytest.raises(InputError):
        read_prompts(tmp_path / "p.json")


def test_only_a_line_feed_ends_a_prompt(tmp_path: Path) -> None:
    texts = ["one\u2028still one", "two\x85still", "three\x0bstill", "four\x0cstill\x1cso"]
    (tmp_path / "p.txt").write_bytes("\r\n".join(texts).encode("utf-8-sig"))
    assert [p.text for p in read_prompts(tmp_path / "p.txt")] == texts


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"prompt": "a"}\n\n{"prompt": "b"\n{"prompt": "c"}\n')
    with pytest.raises(InputError, match="line 3, column"):
        read_prompts(tmp_path / "p.jsonl")


def by_split(prompts: Any) -> dict[str, set[str]]:
    return {s: {p.text for p in prompts[s]} for s in SPLITS}


def rows_in(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


def plain_negative(tmp_path: Path) -> str:
    return rows_in(tmp_path / "n.jsonl", [{"prompt": f"harmless {i}"} for i in range(40)])


def test_a_column_split_is_obeyed(tmp_path: Path) -> None:
    names = {"train": "training", "val": "Validation", "test": "test"}
    rows = [{"prompt": f"{s} {i}", "split": names[s]} for i in range(7) for s in SPLITS]
    given = rows_in(tmp_path / "p.jsonl", rows)
    prompts = configured_prompts(Config(positive=given, negative=plain_negative(tmp_path)))
    assert by_split(prompts.positive) == {s: {f"{s} {i}" for i in range(7)} for s in SPLITS}
    assert [len(prompts.negative[s]) for s in SPLITS] == [24, 8, 8]
    keyed = {s: [f"{s} {i}" for i in range(7)] for s in SPLITS}
    (tmp_path / "p.json").write_text(json.dumps(keyed))
    again = configured_prompts(
        Config(positive=str(tmp_path / "p.json"), negative=plain_negative(tmp_path))
    )
    assert by_split(again.positive) == by_split(prompts.positive)


def test_a_column_split_that_is_none_is_refused(tmp_path: Path) -> None:
    negative = plain_negative(tmp_path)
    for rows, message in (
        ([{"prompt": "a", "split": "holdout"}], "row 1: split 'holdout' is none of"),
        ([{"prompt": "a", "split": "train"}, {"prompt": "b"}], "1 rows without a split beside 1"),
        ([{"prompt": "a", "split": "test"}], "names no train prompts"),
    ):
        with pytest.raises(InputError, match=message):
            configured_prompts(
                Config(positive=rows_in(tmp_path / "p.jsonl", rows), negative=negative)
            )


def split_files(tmp_path: Path, side: str, *splits: str, count: int = 20) -> str:
    for split in splits:
        rows = [{"prompt": f"{side}, {split}: {i}"} for i in range(count)]
        rows_in(tmp_path / f"{side},{split}.jsonl", rows)
    return ",".join(f"{split}={tmp_path / f'{side},{split}.jsonl'}" for split in splits)


def test_a_file_for_each_split(tmp_path: Path) -> None:
    positive = split_files(tmp_path, "harmful", *SPLITS)
    negative = split_files(tmp_path, "harmless", "train", "test")
    borderline = split_files(tmp_path, "border", "test")
    prompts = configured_prompts(
        Config(positive=positive, negative=negative, borderline=borderline)
    )
    for split in SPLITS:
        expected = {f"harmful, {split}: {i}" for i in range(20)}
        assert {p.text for p in prompts.positive[split]} == expected
    assert by_split(prompts.negative)["test"] == {f"harmless, test: {i}" for i in range(20)}
    assert [len(prompts.negative[s]) for s in SPLITS] == [15, 5, 20]  # val is drawn from train
    assert any("names no val prompts" in note for note in prompts.notes)
    assert [len(prompts.borderline[s]) for s in SPLITS] == [0, 0, 20]
    with pytest.raises(InputError, match="names no train prompts"):
        configured_prompts(Config(positive=split_files(tmp_path, "x", "test"), negative=negative))
    with pytest.raises(InputError, match="names a split twice"):
        configured_prompts(Config(positive=f"{positive},{positive}", negative=negative))


def test_every_file_that_is_wrong_is_named_at_once(tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text("{")
    positive = f"train={tmp_path / 'none.txt'},test={tmp_path / 'bad.jsonl'}"
    with pytest.raises(
        InputError, match=r"3 things are wrong.*none\.txt.*bad\.jsonl.*also"
    ) as found:
        configured_prompts(Config(positive=positive, negative=str(tmp_path / "also.csv")))
    assert len(found.value.problems) == 3


def test_what_stands_in_two_splits_is_kept_from_training(tmp_path: Path) -> None:
    rows = [{"prompt": f"p {i}", "split": "train"} for i in range(12)]
    rows += [{"prompt": "p 3", "split": "test"}, {"prompt": "v", "split": "val"}]
    given = rows_in(tmp_path / "p.jsonl", rows)
    prompts = configured_prompts(Config(positive=given, negative=plain_negative(tmp_path)))
    assert by_split(prompts.positive)["test"] == {"p 3"}
    assert "p 3" not in by_split(prompts.positive)["train"]
    assert any("left out of train" in note for note in prompts.notes)


@pytest.mark.parametrize("column", ["topic", "pair", "pair_id", "group", "id"])
def test_groups_stay_in_one_split(tmp_path: Path, column: str) -> None:
    rng = random.Random(0)
    groups = [rng.randrange(15) for _ in range(90)]
    rows = [{"prompt": f"p {i}", column: f"g{g}"} for i, g in enumerate(groups)]
    given = rows_in(tmp_path / "p.jsonl", rows)
    prompts = configured_prompts(Config(positive=given, negative=plain_negative(tmp_path)))
    where: dict[str, set[str]] = {}
    for split in SPLITS:
        for text in by_split(prompts.positive)[split]:
            where.setdefault(f"g{groups[int(text[2:])]}", set()).add(split)
    assert all(len(splits) == 1 for splits in where.values())
    assert len(where) == 15
    sizes = [len(prompts.positive[s]) for s in SPLITS]
    assert sum(sizes) == 90
    assert sizes[0] == pytest.approx(54, abs=6)
    assert sizes[1] == pytest.approx(18, abs=6)
    loose = configured_prompts(
        Config(positive=given, negative=plain_negative(tmp_path), group="none")
    )
    assert [len(loose.positive[s]) for s in SPLITS] == [54, 18, 18]


def test_pairs_stay_together_across_sides_and_ids_do_not_bind_them(tmp_path: Path) -> None:
    for column, together in (("pair", True), ("id", False)):
        sides = {}
        for side in ("positive", "negative"):
            rows = [{"prompt": f"{side} {i}", column: i} for i in range(50)]
            sides[side] = rows_in(tmp_path / f"{side}.jsonl", rows)
        prompts = configured_prompts(Config(**sides))
        for one, other in itertools.product(SPLITS, SPLITS):
            left = {text.split()[1] for text in by_split(prompts.positive)[one]}
            right = {text.split()[1] for text in by_split(prompts.negative)[other]}
            if together and one != other:
                assert not left & right
        assert [len(prompts.positive[s]) for s in SPLITS] == [30, 10, 10]


def test_groups_that_cannot_be_split_are_refused(tmp_path: Path) -> None:
    rows = [{"prompt": f"p {i}", "topic": f"t{i % 2}"} for i in range(40)]
    given = rows_in(tmp_path / "p.jsonl", rows)
    config = {"positive": given, "negative": plain_negative(tmp_path)}
    with pytest.raises(InputError, match=r"groups by topic are too few.*--group, or none"):
        configured_prompts(Config(**config))
    with pytest.raises(InputError, match="no column 'author' to group by"):
        configured_prompts(Config(**config, group="author"))


def test_near_duplicates_are_counted_and_named(tmp_path: Path) -> None:
    rng = random.Random(1)

    def texts(n: int) -> list[str]:
        return ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz ", k=50)) for _ in range(n)]

    train, val, test, negative = texts(12), texts(12), texts(12), texts(36)
    test[3] = train[5].upper() + "?!"
    negative[7] = test[4] + " a"
    for split, rows in zip(SPLITS, (train, val, test), strict=True):
        rows_in(tmp_path / f"{split}.jsonl", [{"prompt": text.strip()} for text in rows])
    positive = ",".join(f"{split}={tmp_path / f'{split}.jsonl'}" for split in SPLITS)
    given = rows_in(tmp_path / "n.jsonl", [{"prompt": text} for text in negative])
    notes = configured_prompts(Config(positive=positive, negative=given)).notes
    assert len(notes) == 2, notes
    assert "1 of 12 positive prompts of test say nearly the same as those of train" in notes[0]
    assert repr(test[3])[:20] in notes[0]
    assert "1 of 36 positive prompts say nearly the same as negative ones" in notes[1]


def test_the_pairs_found_are_those_of_comparing_all_with_all() -> None:
    rng = random.Random(2)
    words = ["how", "do", "i", "make", "a", "cake", "boat", "house", "of", "wood", "日本語", "x"]
    left, right = (
        [" ".join(rng.choices(words, k=rng.randrange(1, 7))) for _ in range(150)] for _ in range(2)
    )

    def jaccard(one: str, other: str) -> float:
        a, b = shingles(one), shingles(other)
        return len(a & b) / len(a | b)

    expected = [
        (i, j)
        for i, one in enumerate(left)
        for j, other in enumerate(right)
        if jaccard(one, other) >= NEAR
    ]
    assert len(expected) > 50
    assert near_pairs(left, right) == expected


def test_replies_of_another_tool_may_be_messages(tmp_path: Path) -> None:
    from somatlas.runs.judged_file import Columns, judge_file

    rows = [
        {"prompt": [user("Name a lake.")], "response": [user("Name a lake."), BOT]},
        {"prompt": "Name a sea.", "response": [{"role": "assistant", "content": "I can't help."}]},
    ]
    path = tmp_path / "r.jsonl"
    rows_in(path, rows)
    judge_file(path, Columns(), Config(), None)
    found = [json.loads(line) for line in (tmp_path / "r.jsonl.verdicts.jsonl").open()]
    assert [row["prompt"] for row in found] == ["Name a lake.", "Name a sea."]
    assert [row["verdict"] for row in found] == ["complied", "refused"]
