"""Prompts that say nearly the same."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
from scipy.sparse import csr_array

from somatlas.prompts.prompt_set import SPLITS, Prompt, PromptSet, Split

_MARKS = re.compile(r"[\W_]+")
_LENGTH = 3  # characters of a shingle
_ROWS = 512  # that are compared with all others at a time
NEAR = 0.7  # share of two prompts' shingles that both have: one word of nine or so differs


@lru_cache(maxsize=1 << 16)
def shingles(text: str) -> frozenset[str]:
    """The runs of three characters of a text, its case, marks and spaces aside."""
    plain = _MARKS.sub(" ", text.casefold()).strip()
    last = max(1, len(plain) - _LENGTH + 1)
    return frozenset(plain[i : i + _LENGTH] for i in range(last))


def near_pairs(
    left: Sequence[str], right: Sequence[str], share: float = NEAR
) -> list[tuple[int, int]]:
    """Pairs (i of left, j of right) whose shingles have a Jaccard index of at least `share`.

    All are compared with all, as products of sparse 0/1 matrices of prompts and shingles.
    """
    if not left or not right:
        return []
    one, other = _matrices([shingles(t) for t in left], [shingles(t) for t in right])
    sizes = [np.asarray(m.sum(axis=1)).ravel() for m in (one, other)]
    found: list[tuple[int, int]] = []
    for start in range(0, len(left), _ROWS):
        both = (one[start : start + _ROWS] @ other.T).tocoo()
        either = sizes[0][start + both.row] + sizes[1][both.col] - both.data
        near = both.data >= share * either
        found += zip((start + both.row[near]).tolist(), both.col[near].tolist(), strict=True)
    return sorted(found)


def _matrices(*sides: Sequence[frozenset[str]]) -> list[csr_array]:
    """(prompts, shingles) of each side: 1 where a prompt has a shingle."""
    column: dict[str, int] = {}
    built = []
    for side in sides:
        places = [[column.setdefault(one, len(column)) for one in sorted(own)] for own in side]
        ends = np.cumsum([0, *map(len, places)])
        flat = np.array([c for row in places for c in row], dtype=np.int32)
        built.append((np.ones(len(flat), dtype=np.int32), flat, ends))
    return [csr_array(parts, shape=(len(parts[2]) - 1, len(column))) for parts in built]


def near_duplicate_notes(prompts: PromptSet) -> list[str]:
    """What of a prompt set is nearly the same across splits, and across its sides: a sentence each,
    with how many and one pair. A prompt and its pair are meant to be alike and left out."""
    sides = {
        "positive": prompts.positive,
        "negative": prompts.negative,
        "borderline": prompts.borderline,
    }
    notes = []
    for name, side in sides.items():
        for i, split in enumerate(SPLITS):
            for later in SPLITS[i + 1 :]:
                where = f"{name} prompts of {later}", f"those of {split}"
                notes += _note(side.get(later, ()), side.get(split, ()), *where)
    every = {name: _every(side) for name, side in sides.items()}
    notes += _note(every["positive"], every["negative"], "positive prompts", "negative ones")
    return notes


def _every(side: Mapping[Split, Sequence[Prompt]]) -> list[Prompt]:
    return [p for split in SPLITS for p in side.get(split, ())]


def _note(left: Sequence[Prompt], right: Sequence[Prompt], what: str, those: str) -> list[str]:
    pairs = [
        (left[i], right[j])
        for i, j in near_pairs([p.text for p in left], [p.text for p in right])
        if not _are_a_pair(left[i], right[j])
    ]
    if not pairs:
        return []
    count = len({one.text for one, _ in pairs})
    one, other = pairs[0]
    return [
        f"{count} of {len(left)} {what} say nearly the same as {those}, such as "
        f"{_shown(one.text)} and {_shown(other.text)}"
    ]


def _are_a_pair(one: Prompt, other: Prompt) -> bool:
    if one.pair is not None and one.pair == other.pair:
        return True
    pairs = [{g for g in p.groups if g[0] in ("pair", "pair_id")} for p in (one, other)]
    return bool(pairs[0] & pairs[1])


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
