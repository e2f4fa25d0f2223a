"""Where runs live: in a folder, or at a URL, of which a local folder is the copy that is worked in.

    $SOMATLAS_CACHE/runs/<machine>/<URL>/<model>/<name>/      the copy of URL/<model>/<name>
    $SOMATLAS_CACHE/runs/<machine>/<URL>/<model>/.replies/    of what runs of a model share

Everything but this asks for a local folder, and gets it here.
"""

from __future__ import annotations

import hashlib
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from somatlas.errors import InputError
from somatlas.files import tell_of_changes
from somatlas.models.embedded import cache_folder
from somatlas.progress import note
from somatlas.runs.local_copy import SHARED, LocalCopy
from somatlas.runs.parsing import is_url

_copies: dict[Path, LocalCopy] = {}


def local_root(out: Path | str) -> Path:
    """The local folder of all runs of `--out`: itself, or for a URL that of its copies."""
    if isinstance(out, Path):
        return out
    readable = re.sub(r"[^\w.-]+", "-", out)[:60].strip("-.")
    digest = hashlib.sha256(out.encode()).hexdigest()[:10]
    # Machines may share a cache folder, and cannot see whether each other's processes still run.
    return cache_folder() / "runs" / (platform.node() or "here") / f"{readable}-{digest}"


def bring(out: Path | str, folder: Path, *, whole: bool = True) -> None:
    """Where `out` is a URL, fetch what is there of a run into its local copy.

    whole : with representations, which reports do without. Raises InputError where the URL cannot
    be read.
    """
    if isinstance(out, Path):
        return
    known = _copies.get(folder)
    if known is not None and known.claim is not None:
        return  # this process writes there
    name = folder.relative_to(local_root(out)).as_posix()
    copy = LocalCopy(f"{out}/{name}", folder)
    copy.fetch(whole=whole)
    _copies[folder] = copy


def run_place(place: str | Path, *, whole: bool = True) -> Path:
    """The folder of a run that a user named by its folder or its URL, fetched where it is a URL."""
    if isinstance(place, Path) or not is_url(place):
        return Path(place)
    parts = place.rstrip("/").rsplit("/", 2)
    if len(parts) < 3 or parts[0].endswith((":", ":/")):
        raise InputError(f"{place} is no run: it must end in /MODEL/NAME")
    root = parts[0]
    folder = local_root(root) / parts[1] / parts[2]
    bring(root, folder, whole=whole)
    return folder


def described(folder: Path) -> str:
    """A run's folder as it is told: for a URL both places."""
    copy = _copies.get(folder)
    return str(folder) if copy is None else f"{copy.remote.url} (local copy: {folder})"


def home_of(folder: Path) -> Path | str:
    """The folder or URL of all runs, `--out`, that a run's folder is in."""
    copy = _copies.get(folder)
    return folder.parents[1] if copy is None else copy.remote.url.rsplit("/", 2)[0]


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """While active, this process alone writes a run's folder at its URL; nothing where it has none.

    Raises InputError where another command writes there, or the URL cannot be written.
    """
    copy = _copies.get(folder)
    if copy is None or copy.claim is not None:
        yield
        return
    note(f"the run is kept at {described(folder)}")
    copy.take()
    shared = folder.parent / SHARED
    url = f"{copy.remote.url.rsplit('/', 1)[0]}/{SHARED}"
    _copies[shared] = replies = _copies.get(shared) or LocalCopy(url, shared)
    try:
        replies.fetch()
        copy.push_all()
        yield
    finally:
        try:
            for one in (replies, copy):
                one.push_all()
        finally:
            copy.let_go()


def _push_change(path: Path) -> None:
    """Push a change of a file in a local copy."""
    for folder, copy in list(_copies.items()):
        if path.is_relative_to(folder):
            copy.changed(path)


tell_of_changes(_push_change)
