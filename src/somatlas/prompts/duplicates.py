"""Prompts that say nearly the same, found without comparing all with all."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from somatlas.prompts.sets import SPLITS, Prompt, PromptSet, Split

_LENGTH = 3  # characters of a shingle
NEAR = 0.7  # share of two prompts' shingles that both have: one word of nine or so differs


def shingles(text: str) -> frozenset[str]:
    """The runs of three characters of a text, its case, marks and spaces aside."""
    plain = " ".join("".join(c if c.isalnum() else " " for c in text.casefold()).split())
    last = max(1, len(plain) - _LENGTH + 1)
    return frozenset(plain[i : i + _LENGTH] for i in range(last))


def near_pairs(
    left: Sequence[str], right: Sequence[str], share: float = NEAR
) -> list[tuple[int, int]]:
    """Pairs (i of left, j of right) whose shingles have a Jaccard index of at least `share`.

    Exact. Two sets so alike have one of the rarest n - ceil(share n) + 1 shingles of either in
    common, so that only what shares such a one is compared.
    """
    sets = [[shingles(text) for text in side] for side in (left, right)]
    count = Counter(one for side in sets for own in side for one in own)

    def rarest(own: frozenset[str]) -> list[str]:
        ordered = sorted(own, key=lambda one: (count[one], one))
        return ordered[: len(own) - math.ceil(share * len(own) - 1e-9) + 1]

    holders: dict[str, list[int]] = defaultdict(list)
    for j, own in enumerate(sets[1]):
        for one in rarest(own):
            holders[one].append(j)
    found = []
    for i, own in enumerate(sets[0]):
        for j in sorted({j for one in rarest(own) for j in holders[one]}):
            both = len(own & sets[1][j])
            if both >= share * (len(own) + len(sets[1][j]) - both):
                found.append((i, j))
    return found


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
