"""From what the user names (bundled, files, hub data sets) to a PromptSet with splits."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast

from somatlas.errors import InputError, Problems
from somatlas.prompts.bundled import bundled_prompts
from somatlas.prompts.duplicates import near_duplicate_notes
from somatlas.prompts.formats import Note, read_prompts
from somatlas.prompts.hub_sets import hub_prompts, paper_prompts
from somatlas.prompts.prompt_set import SPLITS, Prompt, PromptSet, Split
from somatlas.prompts.splits import (
    Side,
    check_splits,
    draw,
    named_splits,
    sided,
)

__all__ = ["Sources", "named_prompts"]

HUB_PREFIX = "hub:"
_NAMED = re.compile(r"(train|val|test)=")


@dataclass(frozen=True)
class Sources:
    """Where prompts come from: a named set, and what replaces its sides.

    positive, negative, borderline : a file or hub:NAME, or train=FILE,val=FILE,test=FILE. column :
    which holds the request. group : columns whose equal values stay in one split; None: the usual.
    seed : decides the order in which prompts are split.
    """

    prompts: Literal["bundled", "paper"] = "bundled"
    positive: str | None = None
    negative: str | None = None
    borderline: str | None = None
    column: str | None = None
    group: tuple[str, ...] | None = None
    seed: int = 0


def named_prompts(named: Sources) -> PromptSet:
    """The prompt set that the sources make.

    A side given by --positive, --negative or --borderline replaces that side of the named set. It
    is one source, or one for each split (train=FILE,val=FILE,test=FILE); what neither its flag nor
    a column `split` puts into a split is drawn 60/20/20 in an order the seed decides, groups kept
    together. Raises InputError for what cannot be read, and where only one of positive and
    negative is given: they must contrast.
    """
    if (named.positive is None) != (named.negative is None):
        given, lacking = ("positive", "negative") if named.positive else ("negative", "positive")
        raise InputError(
            f"--{given} is given without --{lacking}: the two sides must contrast in one thing, "
            "so name both"
        )
    whole = bundled_prompts() if named.prompts == "bundled" else paper_prompts()
    given_sides = {
        "positive": named.positive,
        "negative": named.negative,
        "borderline": named.borderline,
    }
    sources = {name: source for name, source in given_sides.items() if source is not None}
    if not sources:
        return whole
    problems, sides = Problems(), {}
    for name, source in sources.items():
        with problems.gathered():
            sides[name] = _side(name, source, named)
    problems.raise_found()
    splits = draw(sides, named.seed)
    for name, side in sides.items():
        with problems.gathered():
            check_splits(name, side, splits[name])
    problems.raise_found()
    if "positive" in splits:
        whole = PromptSet(splits["positive"], splits["negative"], {})
        _check_contrast(whole)
    if "borderline" in splits:
        whole = replace(whole, borderline=splits["borderline"])
    notes = [note for side in sides.values() for note in side.notes]
    return replace(whole, notes=(*notes, *near_duplicate_notes(whole)))


def _side(name: str, source: str, named: Sources) -> Side:
    needed: tuple[Split, ...] = ("test",) if name == "borderline" else SPLITS
    notes: list[str] = []
    if not _NAMED.match(source):
        side = sided(source, _read(name, source, named, notes.append), needed)
        return replace(side, notes=[*notes, *side.notes])
    parts = re.split(r",(?=(?:train|val|test)=)", source)
    files = [cast(tuple[Split, str], tuple(part.split("=", 1))) for part in parts]
    if len({split for split, _ in files}) < len(files):
        raise InputError(f"--{name} {source} names a split twice: put its prompts in one file")
    problems, fixed = Problems(), {}
    for split, file in files:
        with problems.gathered():
            fixed[split] = _of_split(split, file, _read(name, file, named, notes.append))
    problems.raise_found()
    side = named_splits(source, fixed, needed)
    return replace(side, notes=[*notes, *side.notes])


def _of_split(split: Split, source: str, prompts: list[Prompt]) -> list[Prompt]:
    """The prompts of a source that is named for a split: where its rows name splits, those rows."""
    if not any(p.split for p in prompts):
        return prompts
    own = [p for p in prompts if p.split == split]
    if not own:
        raise InputError(
            f"{source} is named for {split}, and its column 'split' puts no row there: name it for "
            "another split, or take the column out"
        )
    return own


def _read(side: str, source: str, named: Sources, note: Note) -> list[Prompt]:
    if not source.strip():
        raise InputError(f"--{side} {source!r} names no file: give one, or leave it out")
    if source.startswith(HUB_PREFIX):
        return hub_prompts(source.removeprefix(HUB_PREFIX), named.column, named.group, note)
    return read_prompts(Path(source), named.column, named.group, note)


def _check_contrast(prompts: PromptSet) -> None:
    sides = (prompts.positive, prompts.negative)
    both = [{p.text for s in SPLITS for p in side[s]} for side in sides]
    if shared := both[0] & both[1]:
        raise InputError(
            f"{len(shared)} prompts stand in both --positive and --negative "
            f"(one is {min(shared)!r}): each belongs to one side"
        )
