"""Files that grow a line at a time."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from somatlas import InputError
from somatlas.files import JsonlCache, append_rows, appended_rows, read_json, read_jsonl


def test_rows_come_back_in_their_order_whatever_they_hold(tmp_path: Path) -> None:
    path = tmp_path / "made" / "rows.jsonl"
    rows = [{"key": "a", "text": "two\nlines \u2028 and\x85more"}, {"key": "é🙂"}]
    assert appended_rows(path) == []
    for row in rows:
        append_rows(path, [row])
    assert appended_rows(path) == rows


def test_a_line_that_was_cut_short_takes_none_with_it(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    append_rows(path, [{"key": "a"}])
    append_rows(path, [{"key": "ü" * 9}])
    path.write_bytes(path.read_bytes()[:-5])  # in the middle of a letter
    append_rows(path, [{"key": "b"}])
    path.write_bytes(path.read_bytes() + b"7\n")  # JSON, but no object
    assert appended_rows(path) == [{"key": "a"}, {"key": "b"}]


@pytest.mark.parametrize("damage", ["[" * 100_000, "1" * 5000, "[", "\udcff"])
def test_json_that_cannot_be_read_is_refused_or_left_out(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(damage, errors="surrogateescape")
    for read in (read_json, read_jsonl):
        with pytest.raises(InputError, match="cannot be read"):
            read(path)
    assert appended_rows(path) == []


def numbers(path: Path | None) -> JsonlCache[str, int]:
    return JsonlCache(path, lambda n: {"n": n}, lambda row: 0 + row["n"])


def test_a_cache_gives_what_was_put_also_to_who_comes_later(tmp_path: Path) -> None:
    path = tmp_path / "made" / "numbers.jsonl"
    first = numbers(path)
    assert (first.get("a"), "a" in first, len(first)) == (None, False, 0)
    assert not path.exists()
    first.put({"a": 1, "b": 2})
    first.put({"a": 3})
    for cache in (first, numbers(path)):
        assert cache.all() == {"a": 3, "b": 2}
        assert cache.get("a") == 3
    assert appended_rows(path)[0] == {"key": "a", "n": 1}
    first.drop()
    assert (path.exists(), len(first)) == (False, 0)
    first.drop()


@pytest.mark.parametrize("torn", [b'{"key": "c", "n', b'{"key": "c"}\n', b'{"n": 5}\n', b"[]\n"])
def test_a_line_that_holds_no_value_is_left_out_and_the_next_stands_alone(
    tmp_path: Path, torn: bytes
) -> None:
    path = tmp_path / "numbers.jsonl"
    numbers(path).put({"a": 1})
    path.write_bytes(path.read_bytes() + torn)
    cache = numbers(path)
    assert cache.all() == {"a": 1}
    cache.put({"b": 2})
    assert numbers(path).all() == {"a": 1, "b": 2}


@pytest.mark.parametrize("row", [{"key": "x", "n": "5"}, {"key": ["x"], "n": 5}])
def test_a_line_of_another_form_is_left_out(tmp_path: Path, row: dict[str, Any]) -> None:
    path = tmp_path / "numbers.jsonl"
    append_rows(path, [row])
    assert numbers(path).all() == {}


def test_several_threads_lose_no_line(tmp_path: Path) -> None:
    cache = numbers(tmp_path / "numbers.jsonl")

    def work(thread: int) -> None:
        for i in range(50):
            cache.put({f"{thread}-{i}": i})

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(numbers(tmp_path / "numbers.jsonl")) == 200


def test_a_cache_without_a_file_keeps_its_values_in_memory() -> None:
    cache = numbers(None)
    cache.put({"a": 1})
    assert cache.all() == {"a": 1}
    cache.drop()
    assert cache.all() == {}


def test_a_cache_in_order_holds_each_value_once_and_nothing_torn(tmp_path: Path) -> None:
    path = tmp_path / "numbers.jsonl"
    cache = numbers(path)
    cache.arrange(lambda _, n: n)
    assert not path.exists()
    cache.put({"a": 3, "b": 2})
    cache.put({"a": 1})
    with path.open("a") as file:
        file.write('{"key": "c", "n"')
    cache.arrange(lambda _, n: n)
    assert path.read_text() == '{"key": "a", "n": 1}\n{"key": "b", "n": 2}\n'
    assert list(cache.all()) == ["a", "b"]
    assert [one.name for one in tmp_path.iterdir()] == [path.name]
