"""Files that grow a line at a time."""

from __future__ import annotations

from pathlib import Path

from somatlas.files import append_row, appended_rows


def test_rows_come_back_in_their_order_whatever_they_hold(tmp_path: Path) -> None:
    path = tmp_path / "made" / "rows.jsonl"
    rows = [{"key": "a", "text": "two\nlines \u2028 and\x85more"}, {"key": "é🙂"}]
    assert appended_rows(path) == []
    for row in rows:
        append_row(path, row)
    assert appended_rows(path) == rows


def test_a_line_that_was_cut_short_takes_none_with_it(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    append_row(path, {"key": "a"})
    append_row(path, {"key": "ü" * 9})
    path.write_bytes(path.read_bytes()[:-5])  # in the middle of a letter
    append_row(path, {"key": "b"})
    path.write_bytes(path.read_bytes() + b"7\n")  # JSON, but no object
    assert appended_rows(path) == [{"key": "a"}, {"key": "b"}]
