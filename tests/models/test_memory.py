"""Memory that was freed goes back to the system."""

from __future__ import annotations

import platform

import psutil
import pytest

from somatlas.models.memory import give_back

PIECE = 100_000  # bytes: below what glibc asks the system for by itself


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc keeps what is freed")
def test_what_lies_below_a_piece_still_in_use_is_given_back() -> None:
    give_back()
    start = psutil.Process().memory_info().rss
    pieces = [bytearray(PIECE) for _ in range(2000)]
    last = pieces[-1]
    del pieces
    held = psutil.Process().memory_info().rss - start
    give_back()
    left = psutil.Process().memory_info().rss - start
    assert len(last) == PIECE
    assert held > 100_000_000
    assert left < 20_000_000
