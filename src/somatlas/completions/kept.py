"""Replies of a condition that is not whole yet, kept as its batches end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from somatlas.files import JsonlCache
from somatlas.models.reply import Reply


class KeptReplies:
    """Replies by the place of their prompt, in a file that grows by a batch at a time.

    The file is named by all that decides the replies, so that what is in it is never another's.
    """

    def __init__(self, path: Path) -> None:
        self._cache: JsonlCache[int, Reply] = JsonlCache(path, _row, _reply, key="place")

    def known(self) -> dict[int, Reply]:
        """Place -> reply of what was made before an interruption."""
        return self._cache.all()

    def keep(self, places: Sequence[int], replies: Sequence[Reply]) -> None:
        """Add a batch."""
        self._cache.put(dict(zip(places, replies, strict=True)))

    def drop(self) -> None:
        """The condition is whole: nothing is to go on from."""
        self._cache.drop()


def _row(reply: Reply) -> dict[str, Any]:
    return {"reply": reply, "ended": reply.ended}


def _reply(row: Mapping[str, Any]) -> Reply:
    return Reply(row["reply"], ended=row["ended"])
