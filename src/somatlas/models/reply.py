"""A reply: its text, and whether the model ended it."""

from __future__ import annotations

from typing import Self


class Reply(str):
    """The text of a reply.

    ended : the model ended it; False where the number of tokens that it was allowed did, or who
    watched it being made.
    """

    __slots__ = ("ended",)
    ended: bool

    def __new__(cls, text: str, *, ended: bool) -> Self:
        reply = super().__new__(cls, text)
        reply.ended = ended
        return reply

    def __getnewargs_ex__(self) -> tuple[tuple[str], dict[str, bool]]:
        """What it is made of again in another process."""
        return (str(self),), {"ended": self.ended}
