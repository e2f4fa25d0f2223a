"""Pieces of work: dealt in a window, sent again where they are lost, handed out in order."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from somatlas import InputError
from somatlas.fleet import InPlace, Work, deal
from somatlas.fleet.dispatch import LOSSES, Dispatch
from somatlas.fleet.work import checked


@given(
    sizes=st.lists(st.integers(1, 5), max_size=12),
    window=st.integers(1, 6),
    seed=st.integers(0, 2**32),
)
def test_results_come_in_order_whatever_is_lost_and_halved(
    sizes: list[int], window: int, seed: int
) -> None:
    """Workers without number; each part may be lost, be too large, or come back, at any time."""
    rng, pieces = random.Random(seed), [[(i, j) for j in range(n)] for i, n in enumerate(sizes)]
    dispatch: Dispatch[tuple[int, int], tuple[int, int]] = Dispatch(pieces, window, "work")
    out, found, losses = [], [], 0
    while not dispatch.finished:
        while (part := dispatch.next()) is not None:
            out.append(part)
        assert {part.piece for part in out} <= set(range(len(found), len(found) + window))
        part = out.pop(rng.randrange(len(out)))
        chance = rng.random()
        if chance < 0.2 and part.losses < LOSSES - 1:
            losses += 1
            dispatch.lost(part, "it was killed")
        elif chance < 0.4 and dispatch.too_large(part):
            continue
        else:
            dispatch.done(part, part.items)
            found += dispatch.ready()
    assert found == pieces


def test_what_is_lost_twice_is_halved_and_what_is_lost_always_is_given_up() -> None:
    dispatch: Dispatch[int, int] = Dispatch([[1, 2, 3]], 4, "scores")
    part = dispatch.next()
    assert part is not None
    dispatch.lost(part, "it died")
    assert dispatch.next() is part
    dispatch.lost(part, "it died")
    halves = [dispatch.next(), dispatch.next()]
    assert [half and list(half.items) for half in halves] == [[1, 2], [3]]
    small = halves[1]
    assert small is not None
    assert not dispatch.too_large(small)
    for _ in range(LOSSES - small.losses - 1):
        dispatch.lost(small, "it died")
        assert dispatch.next() is small
    with pytest.raises(InputError, match=r"a piece of scores was lost 5 times.*because it died"):
        dispatch.lost(small, "it died")


def square(_context: str, add: int) -> Work[int, int]:
    return lambda items, advance: [advance(1) or item**2 + add for item in items]  # type: ignore[func-returns-value]


def test_in_place_work_is_set_up_once_and_with_the_first_piece() -> None:
    made = []

    def setup(context: str, shared: int) -> Work[int, int]:
        made.append(context)
        return square(context, shared)

    fleet, steps = InPlace("model"), list[int]()
    work = fleet.prepared(setup, 1)
    results = work.each(deal([1, 2, 3], 2), steps.append)
    assert made == []
    assert list(results) == [[2, 5], [10]]
    assert work.one(4) == 17
    assert (made, steps) == (["model"], [1, 1, 1])


def test_work_must_give_one_result_an_item() -> None:
    with pytest.raises(RuntimeError, match="scores gave 1 results for 2 items"):
        checked([1], [1, 2], "scores")
