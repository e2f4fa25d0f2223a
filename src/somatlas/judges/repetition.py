"""What a reply's tokens repeat: themselves, in a loop, or the prompt."""

from __future__ import annotations

from collections.abc import Sequence

_NGRAM = 4
_LOOP_GRAMS = 12  # a loop's repeats are at least so many 4-grams
_LOOP_HEAD = 6  # the first of which all repeat: a phrase that returns by chance is shorter
_LOOP_SHARE = 0.8  # of which so many stand earlier: a counter in the loop may change


def repetition(token_ids: Sequence[int]) -> float:
    """Share of 4-grams that stand earlier in the sequence too: 0 all new, near 1 a loop."""
    first = _first_places(token_ids)
    return 1 - len(set(first)) / len(first) if first else 0.0


def echo(token_ids: Sequence[int], prompt: Sequence[int]) -> float:
    """Share of the 4-grams of a reply that stand in its prompt too; 0 where it has none."""
    own, others = _grams(token_ids), set(_grams(prompt))
    return sum(gram in others for gram in own) / len(own) if own else 0.0


def before_loop(token_ids: Sequence[int]) -> int:
    """How many tokens stand before a loop that goes on to the end; all of them where there is none.

    The loop is the longest end of the sequence whose 4-grams, at least 12, are repeats but for one
    in five, the first six without exception; it begins where the first of them stood first, so that
    a sentence said over and over leaves nothing before it.
    """
    first = _first_places(token_ids)
    repeats = [place < i for i, place in enumerate(first)]
    for start in range(len(first) - _LOOP_GRAMS + 1):
        rest = repeats[start:]
        if all(rest[:_LOOP_HEAD]) and sum(rest) >= _LOOP_SHARE * len(rest):
            return first[start]
    return len(token_ids)


def _first_places(token_ids: Sequence[int]) -> list[int]:
    """For each 4-gram of the sequence, the place where it stood first."""
    seen: dict[tuple[int, ...], int] = {}
    return [seen.setdefault(gram, i) for i, gram in enumerate(_grams(token_ids))]


def _grams(token_ids: Sequence[int]) -> list[tuple[int, ...]]:
    return list(zip(*(token_ids[i:] for i in range(_NGRAM)), strict=False))
