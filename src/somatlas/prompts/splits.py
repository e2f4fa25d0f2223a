"""Prompts into train, val and test: as their files say, or by a draw that keeps groups together."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from somatlas.errors import InputError
from somatlas.prompts.formats import SHARED_GROUPS
from somatlas.prompts.prompt_set import SPLITS, Prompt, Split

SPLIT_SHARES: Mapping[Split, float] = {"train": 0.6, "val": 0.2, "test": 0.2}
MIN_FOR_SPLITS = 10
# Of one text in several splits the last of these keeps it: no test prompt is trained on.
_KEEPS: tuple[Split, ...] = ("train", "val", "test")

Splits = dict[Split, list[Prompt]]


@dataclass
class Side:
    """The prompts of one side before they are split.

    source : as the user named it. fixed : those that have their split. free : those to be drawn
    for, among the splits of open_to.
    """

    source: str
    fixed: Splits = field(default_factory=dict)
    free: list[Prompt] = field(default_factory=list)
    open_to: tuple[Split, ...] = SPLITS
    notes: list[str] = field(default_factory=list)


def sided(source: str, prompts: Sequence[Prompt], needed: Sequence[Split] = SPLITS) -> Side:
    """A side of one source: where its rows name splits those are obeyed, and splits that no row
    names are drawn from its train rows.

    Raises InputError where some rows name none, or none of them is train.
    """
    named = Counter(p.split for p in prompts)
    if set(named) == {None}:
        free = _unique(prompts)
        return Side(source, free=free, notes=_repeated(source, len(prompts) - len(free)))
    if None in named:
        raise InputError(
            f"{source} has {named[None]} rows without a split beside {len(prompts) - named[None]} "
            "with one: fill the column, or leave it out"
        )
    fixed: Splits = {s: [p for p in prompts if p.split == s] for s in SPLITS if named[s]}
    return named_splits(source, fixed, needed)


def named_splits(source: str, fixed: Splits, needed: Sequence[Split] = SPLITS) -> Side:
    """A side whose splits are given; those that are needed and not given are drawn from train.

    Raises InputError where there is no train to draw them from.
    """
    side = Side(source, {split: _unique(prompts) for split, prompts in fixed.items()})
    repeated = sum(len(fixed[split]) - len(own) for split, own in side.fixed.items())
    side.notes += _repeated(source, repeated)
    place = {p.text: split for split in _KEEPS for p in side.fixed.get(split, ())}
    for split in side.fixed:
        kept = [p for p in side.fixed[split] if place[p.text] == split]
        if left := len(side.fixed[split]) - len(kept):
            side.notes.append(
                f"{left} prompts of {source} stand in {split} and in a later split too: they were "
                f"left out of {split}"
            )
        side.fixed[split] = kept
    lacking = tuple(split for split in needed if split not in fixed)
    if lacking and "train" not in fixed:
        raise InputError(f"{source} names no train prompts: give train=FILE too")
    if lacking:
        side.free, side.open_to = side.fixed.pop("train"), ("train", *lacking)
        side.notes.append(
            f"{source} names no {' and no '.join(lacking)} prompts: they were drawn from train"
        )
    return side


def draw(sides: Mapping[str, Side], seed: int) -> dict[str, Splits]:
    """The splits of every side: what is fixed, and the rest by shares, in an order that the seed
    decides. Prompts of one group, of whatever side, come into one split where they are drawn.
    """
    shuffled = {}
    for name, side in sides.items():
        shuffled[name] = list(side.free)
        random.Random(seed).shuffle(shuffled[name])
    grouped = any(p.groups for side in sides.values() for p in side.free)
    if grouped:
        return _by_groups(sides, shuffled, seed)
    return {name: _filled(side, _cut(shuffled[name], side.open_to)) for name, side in sides.items()}


def check_splits(name: str, side: Side, splits: Splits) -> None:
    """Raise InputError where a split has no prompt, or a draw had too few."""
    if side.free and len(side.free) < MIN_FOR_SPLITS:
        raise InputError(
            f"{side.source} holds fewer than {MIN_FOR_SPLITS} different prompts: too few to split "
            f"into {', '.join(side.open_to[:-1])} and {side.open_to[-1]}"
        )
    needed = ("test",) if name == "borderline" else SPLITS
    empty = [split for split in needed if not splits[split]]
    if empty and side.free:
        columns = sorted({column for p in side.free for column, _ in p.groups})
        raise InputError(
            f"{side.source} leaves {empty[0]} without prompts: its groups by "
            f"{', '.join(columns)} are too few or too large; name other columns with --group, or "
            "none"
        )
    if empty:
        raise InputError(f"{side.source} has no {empty[0]} prompts: every split needs some")


def _unique(prompts: Sequence[Prompt]) -> list[Prompt]:
    return list({p.text: p for p in prompts}.values())


def _repeated(source: str, count: int) -> list[str]:
    if not count:
        return []
    return [f"{count} prompts of {source} say what another says: they were left out"]


def _filled(side: Side, drawn: Splits) -> Splits:
    return {s: [*side.fixed.get(s, ()), *drawn.get(s, ())] for s in SPLITS}


def _targets(count: int, splits: Sequence[Split]) -> dict[Split, int]:
    """How many of count come into each split."""
    whole, ends, total = sum(SPLIT_SHARES[s] for s in splits), [], 0.0
    for split in splits:
        total += SPLIT_SHARES[split]
        ends.append(round(count * total / whole))
    return {s: end - start for s, start, end in zip(splits, [0, *ends], ends, strict=False)}


def _cut(prompts: Sequence[Prompt], splits: Sequence[Split]) -> Splits:
    found: Splits = {}
    start = 0
    for split, count in _targets(len(prompts), splits).items():
        found[split] = list(prompts[start : start + count])
        start += count
    return found


@dataclass(frozen=True)
class _Member:
    """A prompt of a side; split is None where it is drawn for."""

    side: str
    prompt: Prompt
    split: Split | None


def _by_groups(
    sides: Mapping[str, Side], shuffled: Mapping[str, list[Prompt]], seed: int
) -> dict[str, Splits]:
    """Whole groups, the largest first, each to the split that lacks most of its sides' prompts;
    where another file has put a part of the group into a split, there."""
    members = [
        *(_Member(n, p, None) for n, prompts in shuffled.items() for p in prompts),
        *(
            _Member(n, p, split)
            for n, s in sides.items()
            for split in s.fixed
            for p in s.fixed[split]
        ),
    ]
    groups = _components(members)
    random.Random(seed).shuffle(groups)
    groups.sort(key=lambda group: -len(group))
    lack = {name: _targets(len(shuffled[name]), side.open_to) for name, side in sides.items()}
    chosen: dict[tuple[str, str], Split] = {}
    for group in groups:
        free = [one for one in group if one.split is None]
        if not free:
            continue
        own = Counter(one.side for one in free)
        open_to = [s for s in SPLITS if all(s in sides[name].open_to for name in own)]
        given = [one.split for one in group if one.split is not None and one.split in open_to]
        split = given[0] if given else _neediest(open_to, [lack[name] for name in own])
        for one in free:
            chosen[one.side, one.prompt.text] = split
            lack[one.side][split] -= 1
    return {
        name: _filled(
            side,
            {
                split: [p for p in shuffled[name] if chosen[name, p.text] == split]
                for split in side.open_to
            },
        )
        for name, side in sides.items()
    }


def _neediest(splits: Sequence[Split], lacks: Sequence[Mapping[Split, int]]) -> Split:
    return max(splits, key=lambda split: sum(lack[split] for lack in lacks))


def _components(members: Sequence[_Member]) -> list[list[_Member]]:
    """Members that share a value of a column, or are joined by others that do."""
    root = list(range(len(members)))

    def find(i: int) -> int:
        while root[i] != i:
            root[i] = root[root[i]]
            i = root[i]
        return i

    first: dict[tuple[str, ...], int] = {}
    for i, one in enumerate(members):
        for column, value in one.prompt.groups:
            key = (column, value) if column in SHARED_GROUPS else (one.side, column, value)
            root[find(i)] = find(first.setdefault(key, i))
    found: dict[int, list[_Member]] = {}
    for i, one in enumerate(members):
        found.setdefault(find(i), []).append(one)
    return list(found.values())
