"""Replies of a condition that is not whole yet, kept as its batches end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from somatlas.files import append_rows, appended_rows
from somatlas.models.reply import Reply


class KeptReplies:
    """Replies by the place of their prompt, in a file that grows by a batch at a time.

    The file is named by all that decides the replies, so that what is in it is never another's.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def known(self) -> dict[int, Reply]:
        """Place -> reply of what was made before an interruption."""
        rows = [row for row in appended_rows(self.path) if "ended" in row]
        return {int(row["place"]): Reply(row["reply"], ended=row["ended"]) for row in rows}

    def keep(self, places: Sequence[int], replies: Sequence[Reply]) -> None:
        """Add a batch."""
        append_rows(
            self.path,
            (
                {"place": place, "reply": reply, "ended": reply.ended}
                for place, reply in zip(places, replies, strict=True)
            ),
        )

    def drop(self) -> None:
        """The condition is whole: nothing is to go on from."""
        self.path.unlink(missing_ok=True)
