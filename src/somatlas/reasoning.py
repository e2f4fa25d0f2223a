"""Models that think aloud: what they think, and what they answer."""

from __future__ import annotations

from typing import NamedTuple

_OPEN, _CLOSE = "<think>", "</think>"


class Parted(NamedTuple):
    """A reply's reasoning and answer."""

    reasoning: str
    answer: str


def opens_reasoning(head: str) -> bool:
    """Whether a chat-formatted prompt ends in a block of reasoning that the reply goes on with."""
    return head.rstrip().endswith(_OPEN)


def part_reasoning(reply: str, *, opened: bool = False) -> Parted:
    """Part what stands in <think> blocks from the rest; several of either are put together.

    opened : the prompt ended in an open block. Without it, a closing mark that comes first tells
    as much. What was cut while it reasons is reasoning up to its end; a reply without marks is all
    answer.
    """
    first, closed, _ = reply.partition(_CLOSE)
    if opened or (closed and _OPEN not in first):
        reply = _OPEN + reply
    answer, *blocks = reply.split(_OPEN)
    parts = [block.partition(_CLOSE) for block in blocks]
    thoughts = [thought for thought, _, _ in parts]
    return Parted(_joined(thoughts), _joined([answer, *(after for _, _, after in parts)]))


def _joined(pieces: list[str]) -> str:
    return "\n\n".join(piece.strip() for piece in pieces if piece.strip())
