"""A run at a URL is worked on in a local copy, and every change is pushed as it is made.

    FOLDER                       the copy
    .<FOLDER's name>.copy.json   beside it: what was last the same here and there; who writes here

`somatlas.files` tells of every file that was written or removed, and each is pushed before the next
one is. So what is at the URL is always what a run killed at an earlier moment leaves, and a run
elsewhere goes on from there as from any killed one.

At opening the URL is right: where anything there was changed by others since, the copy is made
equal to it. Where nothing was, the copy may be ahead of it (a run that was killed), and is pushed.
A file that is missing in the copy is fetched again: nothing goes at the URL because it was cleared.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from threading import RLock
from typing import Any

from pydantic import Field

from somatlas.errors import InputError
from somatlas.files import read_json, write_json
from somatlas.progress import note
from somatlas.records import Form, checked
from somatlas.runs.claim import Claim, is_running, this_process
from somatlas.runs.remote_folder import RemoteFolder, UnreachableError

PAUSE_S = 5.0  # a file that grows by small steps is pushed this often at most
PATIENCE_S = 600.0  # how long a URL may fail until the command gives up
_RECORD = "stages.json"  # says which of the other files are whole
_VECTORS = "representations/"
SHARED = ".replies"  # of all runs of a model; each file is one key's, whoever makes it


class _Kept(Form):
    """What a copy keeps beside itself: see `LocalCopy`."""

    owner: dict[str, Any] | None = None
    files: dict[str, list[Any]] = Field(default_factory=dict)


class LocalCopy:
    """The local copy of one folder at a URL."""

    def __init__(self, url: str, folder: Path) -> None:
        self.remote = RemoteFolder(url)
        self.folder = folder
        self.claim: Claim | None = None
        self._record = folder.with_name(f".{folder.name}.copy.json")
        self._lock = RLock()
        self._last: tuple[Path, float] | None = None  # what was pushed last, and when
        self._behind = False  # it has grown since
        self._failed = False
        self._shared = folder.name == SHARED
        record: dict[str, Any] = {}
        if self._record.exists():
            record = checked(_Kept, read_json(self._record), str(self._record))
        self._owner: dict[str, Any] | None = record.get("owner")
        # Name -> size and time of the local file, version at the URL, when both were the same.
        self._same: dict[str, list[Any]] = record.get("files", {})

    def take(self) -> None:
        """Begin to write: see `claimed`."""
        claim = Claim(self.remote)
        claim.take(self._owner)
        try:
            if self.fetch():
                raise InputError(
                    f"{self.remote.url} was changed by another command while this one began: give "
                    "the command again"
                )
            self._owner = {"token": claim.token, **this_process()}
            self._keep_record()
        except BaseException:
            claim.release()
            raise
        self.claim = claim

    def let_go(self) -> None:
        """No longer write."""
        if self.claim is not None:
            self.claim.release()
            self.claim = None

    def fetch(self, *, whole: bool = True) -> bool:
        """Make the copy equal to what is at the URL, unless it is only ahead of it; True if the URL
        was changed by others. whole : with representations.

        A copy that another process of this machine works in is left as it is.
        """
        if self._is_lent():
            return False
        for _ in range(3):
            try:
                return self._fetch(whole)
            except FileNotFoundError:  # a run that is at work took it away or wrote it anew
                continue
        raise InputError(f"{self.remote.url} changes as it is read: try again, or once it is done")

    def changed(self, path: Path) -> None:
        """Push a file that was written or is gone, and what else has changed before it.

        One that grows again and again is pushed after a pause, or when another file changes.
        """
        with self._lock:
            now = time.monotonic()
            if self._last is not None and self._last[0] == path:
                if now - self._last[1] < PAUSE_S and path.exists():
                    self._behind = True
                    return
            elif self._behind and self._last is not None:
                self._push_one(self._last[0])
            if self.claim is None or not path.exists():
                self._push_one(path)
            else:
                self._push_changes()
            self._last, self._behind = (path, time.monotonic()), False

    def push_all(self) -> None:
        """Push what is left, but for a copy whose URL has failed."""
        with self._lock:
            if self._failed:
                return
            if self.claim is not None or self._shared:
                self._push_changes()
            elif self._behind and self._last is not None:
                self._push_one(self._last[0])
            self._behind = False

    def _fetch(self, whole: bool) -> bool:
        there, here = self.remote.versions(), self._files()
        if not whole:
            there = {n: v for n, v in there.items() if not n.startswith(_VECTORS)}
        wanted = [n for n, v in there.items() if n not in self._same or self._same[n][2] != v]
        gone = {n for n in self._same if n not in there and (whole or not n.startswith(_VECTORS))}
        if not wanted and not gone:
            self._take_in([n for n in there if n not in here], there)
            return False
        if self._shared:  # nobody's file is wrong, and the longer one of two has more replies
            self._take_in([n for n in wanted if n not in here], there)
            return True
        wanted += [n for n in self._same if n not in here or self._differs(n, here)]
        for name in here:  # first: once the rest is equal, they would be taken for news
            if name not in there and (whole or not name.startswith(_VECTORS)):
                (self.folder / name).unlink()
        self._take_in([n for n in dict.fromkeys(wanted) if n in there], there)
        for name in gone:
            del self._same[name]
        self._keep_record()
        return True

    def _take_in(self, names: list[str], there: dict[str, str]) -> None:
        """Fetch files, and put them into place once all are there."""
        if not names:
            return
        mebibytes = sum(int(there[name].split()[0]) for name in names) / 2**20
        if not self._shared:
            note(f"fetching {len(names)} files, {mebibytes:.0f} MiB, of {self.remote.url}")
        staged = self.folder.with_name(f".{self.folder.name}.fetched")
        shutil.rmtree(staged, ignore_errors=True)
        rest = [name for name in names if name != _RECORD]
        try:
            if _RECORD in names:  # first: what it says is whole is so in what is read after it
                self.remote.get([_RECORD], staged)
                if self.remote.versions().get(_RECORD) != there[_RECORD]:
                    raise FileNotFoundError(_RECORD)
            if rest:
                self.remote.get(rest, staged)
            for name in names:
                target = self.folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                (staged / name).replace(target)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
        here = self._files()
        self._same |= {name: [*here[name], there[name]] for name in names}
        self._keep_record()

    def _push_changes(self) -> None:
        """Push what is new or has changed since it was last the same, the oldest change first."""
        if self.claim is not None:
            self.claim.check()
        here = self._files()
        for name in sorted(here, key=lambda name: here[name][1]):
            if name not in self._same or self._differs(name, here):
                self._push(name)
        self._keep_record()

    def _push_one(self, path: Path) -> None:
        if self.claim is not None:
            self.claim.check()
        self._push(path.relative_to(self.folder).as_posix())
        self._keep_record()

    def _push(self, name: str) -> None:
        """Push a file as it is, or that it is gone; for as long as it takes to reach the URL."""
        path, end, pause = self.folder / name, time.monotonic() + PATIENCE_S, 1.0
        while True:
            try:
                if path.exists():
                    was = _state(path)  # before: what it grows by meanwhile is pushed again
                    with _as_it_stands(path) as content:
                        self._same[name] = [*was, self.remote.put(content, name)]
                else:
                    self.remote.remove(name)
                    self._same.pop(name, None)
                return
            except UnreachableError as error:
                if error.lasting or time.monotonic() > end:
                    self._failed = True
                    raise InputError(
                        f"{error}; what is done is kept in {self.folder}, and the same command "
                        "goes on from there"
                    ) from None
                if pause == 1.0:
                    note(f"{error}: trying again for {PATIENCE_S / 60:.0f} minutes")
                time.sleep(pause)
                pause = min(2 * pause, 30.0)

    def _differs(self, name: str, here: dict[str, list[int]]) -> bool:
        return here[name] != self._same[name][:2]

    def _files(self) -> dict[str, list[int]]:
        """Name -> size and time of every local file, hidden ones and SQLite's journals left out."""
        return {
            path.relative_to(self.folder).as_posix(): _state(path)
            for path in self.folder.rglob("*")
            if not path.name.startswith(".")
            and not path.suffix.startswith(".db-")
            and path.is_file()
        }

    def _is_lent(self) -> bool:
        """Whether another process of this machine writes in this copy."""
        owner = self._owner
        mine = this_process()
        return owner is not None and owner["pid"] != mine["pid"] and is_running(owner)

    def _keep_record(self) -> None:
        if not (self.claim is None and self._is_lent()):
            content = {"url": self.remote.url, "owner": self._owner, "files": self._same}
            write_json(self._record, content)


@contextmanager
def _as_it_stands(path: Path) -> Iterator[Path]:
    """A path with the file's content: of an SQLite database as its last transaction left it."""
    if path.suffix != ".db":
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / path.name
        with (
            closing(sqlite3.connect(path, timeout=60)) as source,
            closing(sqlite3.connect(target)) as copy,
        ):
            source.backup(copy)
        yield target


def _state(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_size, found.st_mtime_ns]
