"""Models that think aloud: what they think, and what they answer."""

from __future__ import annotations

from typing import NamedTuple

_OPEN, _CLOSE = "<think>", "</think>"


class Parted(NamedTuple):
    """A reply's reasoning and answer."""

    reasoning: str
    answer: str


def part_reasoning(reply: str) -> Parted:
    """Part what stands before </think> from the rest.

    Some templates open the reasoning themselves, so that the reply holds the closing mark alone.
    A reply that was cut while it reasons has no answer; one without marks is all answer.
    """
    before, closed, after = reply.partition(_CLOSE)
    if closed:
        return Parted(before.replace(_OPEN, "", 1).strip(), after.strip())
    if reply.lstrip().startswith(_OPEN):
        return Parted(reply.replace(_OPEN, "", 1).strip(), "")
    return Parted("", reply)
