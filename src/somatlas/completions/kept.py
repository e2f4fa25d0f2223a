"""Replies of a condition that is not whole yet, kept as its batches end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from somatlas.files import JsonlCache
from somatlas.models.reply import Reply
from somatlas.records import row_reader


class KeptReplies:
    """Replies by the place of their prompt, in a file that grows by a batch at a time.

    The file is named by all that decides the replies, so that what is in it is never another's.
    """

    def __init__(self, path: Path) -> None:
        self._cache: JsonlCache[int, Reply] = JsonlCache(path, reply_row, row_reply, key="place")

    def known(self) -> dict[int, Reply]:
        """Place -> reply of what was made before an interruption."""
        return self._cache.all()

    def keep(self, places: Sequence[int], replies: Sequence[Reply]) -> None:
        """Add a batch."""
        self._cache.put(dict(zip(places, replies, strict=True)))

    def drop(self) -> None:
        """The condition is whole: nothing is to go on from."""
        self._cache.drop()


@dataclass(frozen=True)
class _Row:
    reply: str
    ended: bool


_read = row_reader(_Row)


def reply_row(reply: Reply) -> dict[str, Any]:
    """A reply as a line of a file."""
    return {"reply": reply, "ended": reply.ended}


def row_reply(row: Mapping[str, Any]) -> Reply:
    """The reply of such a line; raises ValueError or KeyError where it holds none."""
    found = _read({name: row[name] for name in ("reply", "ended")})
    return Reply(found.reply, ended=found.ended)
