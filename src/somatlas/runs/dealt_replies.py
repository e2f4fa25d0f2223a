"""Replies of the run's model, made in batches by its fleet and kept by the driver."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from typing import Any

from somatlas.ablation import Projection
from somatlas.completions.cache import ReplyStore
from somatlas.completions.kept import KeptReplies
from somatlas.completions.make import Generator, parted
from somatlas.fleet import Work, deal, flat
from somatlas.models.reasoning import Parted
from somatlas.models.reply import Reply
from somatlas.models.sampling import Sampling, sample_numbers
from somatlas.progress import Advance
from somatlas.runs.folder import Run


@dataclass(frozen=True)
class Wanted:
    """Replies that are made alike: under one edit, None for none, and one system prompt."""

    projection: Projection | None
    system: str | None
    prompts: list[str]


@dataclass(frozen=True)
class _How:
    """Shared by all batches: what is wanted, and how replies are drawn."""

    wanted: list[Wanted]
    sampling: Sampling | None


@dataclass(frozen=True)
class _Keyed:
    """What decides the replies to some prompts, and how many tokens each prompt has."""

    key: dict[str, Any]
    lengths: list[int]


@dataclass(frozen=True)
class _Asked:
    """A prompt, by its place, of one of what is wanted; sample : which of its replies it is."""

    which: int
    place: int
    sample: int


def dealt_replies(
    run: Run, wanted: Sequence[Wanted], sampling: Sampling | None, advance: Advance
) -> list[list[Parted]]:
    """The replies to the prompts of each of what is wanted, in order; each is made once.

    A piece of work is a batch, the longest prompts first, as `generate` deals them.
    """
    store = ReplyStore(run.folder.parent / ".replies")
    how = _How(list(wanted), sampling)
    keyed = flat(run.fleet.prepared(key_work, how).each(deal(range(len(wanted)), 1)))
    said: dict[int, list[Reply]] = {}
    growing: dict[int, KeptReplies] = {}
    pieces: list[list[_Asked]] = []

    def finish(which: int) -> None:
        """Keep the whole, once all of it is there."""
        prompts, kept = wanted[which].prompts, growing[which]
        found = kept.known()
        if len(found) == len(prompts):
            said[which] = [found[place] for place in range(len(prompts))]
            store.put(keyed[which].key, prompts, said[which])
            kept.drop()

    alike = [[one.key, own.prompts] for one, own in zip(keyed, wanted, strict=True)]
    first = [alike.index(one) for one in alike]  # SD and MD of one direction are one edit
    for which, one in enumerate(wanted):
        if first[which] != which:
            advance(len(one.prompts))
            continue
        whole = store.find(keyed[which].key, one.prompts)
        if whole is not None:
            said[which] = whole
            advance(len(whole))
            continue
        growing[which] = store.growing(keyed[which].key, one.prompts)
        known = growing[which].known()  # of an interrupted call
        advance(len(known))
        pieces += _batches(which, one, keyed[which].lengths, known, run.config.batch_size)
        finish(which)
    made = run.fleet.prepared(reply_work, how).each(pieces, advance)
    for piece, replies in zip(pieces, made, strict=True):
        which = piece[0].which
        growing[which].keep([one.place for one in piece], replies)
        finish(which)
    ready = [(one.system, one.prompts[0], said[i]) for i, one in zip(first, wanted, strict=True)]
    return flat(run.fleet.prepared(part_work, None).each(deal(ready, 1)))


def key_work(run: Run, how: _How) -> Work[int, _Keyed]:
    """What decides the replies to each of what is wanted."""
    generator = _generator(run, how)

    def work(items: Sequence[int], _advance: Advance) -> list[_Keyed]:
        found = []
        for one in (how.wanted[which] for which in items):
            lm = replace(run.lm, system=one.system)
            key = generator.key(lm, one.projection, one.prompts)
            found.append(_Keyed(key, [len(lm.token_ids(prompt)) for prompt in one.prompts]))
        return found

    return work


def reply_work(run: Run, how: _How) -> Work[_Asked, Reply]:
    """Replies to prompts of one of what is wanted, in one batch."""
    generator = _generator(run, how)

    def work(items: Sequence[_Asked], advance: Advance) -> list[Reply]:
        one = how.wanted[items[0].which]
        return generator.make(
            replace(run.lm, system=one.system),
            one.projection,
            [one.prompts[item.place] for item in items],
            advance,
            samples=[item.sample for item in items],
        )

    return work


def part_work(run: Run, _shared: None) -> Work[tuple[str | None, str, list[Reply]], list[Parted]]:
    """Reasoning and answers of replies, made under a system prompt, of which one prompt is told."""
    return lambda items, _advance: [
        parted(replace(run.lm, system=system), prompt, replies) for system, prompt, replies in items
    ]


def _generator(run: Run, how: _How) -> Generator:
    return Generator(run.lm, run.config.test_tokens, run.config.batch_size, how.sampling)


def _batches(
    which: int, one: Wanted, lengths: Sequence[int], known: Container[int], size: int
) -> list[list[_Asked]]:
    """The prompts that have no reply yet, in batches."""
    numbers = sample_numbers(one.prompts)
    asked = [
        _Asked(which, place, numbers[place])
        for place in range(len(one.prompts))
        if place not in known
    ]
    return deal(sorted(asked, key=lambda row: -lengths[row.place]), size)
