"""Replies of a condition that is not whole yet, kept as its batches end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from somatlas.files import append_rows, appended_rows


class KeptReplies:
    """Replies by the place of their prompt, in a file that grows by a batch at a time.

    The file is named by all that decides the replies, so that what is in it is never another's.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def known(self) -> dict[int, str]:
        """Place -> reply of what was made before an interruption."""
        rows = appended_rows(self.path)
        return {int(row["place"]): str(row["reply"]) for row in rows if "reply" in row}

    def keep(self, places: Sequence[int], replies: Sequence[str]) -> None:
        """Add a batch."""
        pairs = zip(places, replies, strict=True)
        append_rows(self.path, ({"place": place, "reply": reply} for place, reply in pairs))

    def drop(self) -> None:
        """The condition is whole: nothing is to go on from."""
        self.path.unlink(missing_ok=True)
