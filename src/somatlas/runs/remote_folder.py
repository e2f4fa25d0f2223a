"""A folder at an fsspec URL: what is in it, and files that appear there whole or not at all.

Object stores (S3, Google's, Azure's) show an object when all of it is there. Elsewhere a file is
written under a hidden name and moved, which is as whole as that file system's move.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import fsspec

from somatlas.errors import InputError, without_password

# Protocols whose puts appear whole, and which have no folders to make.
_OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oss", "oci"}
# What tells one version of a file from another: the first that a file system has of these.
_VERSION = (
    *("ETag", "etag", "md5Hash", "content_md5", "mtime"),
    *("LastModified", "last_modified", "modify", "created"),
)
# Python packages of protocols that an extra of this one brings.
_EXTRAS = {"s3": "s3", "s3a": "s3"}


class UnreachableError(InputError):
    """A URL that cannot be read or written. lasting : trying again would not help."""

    def __init__(self, message: str, *, lasting: bool) -> None:
        super().__init__(message)
        self.lasting = lasting


class RemoteFolder:
    """One folder. Every method raises UnreachableError, in one sentence, where it fails."""

    def __init__(self, url: str) -> None:
        """Raises InputError for a protocol that is not known, or whose package is missing."""
        self.url = url
        protocol = url.split("://")[0]
        try:
            self._fs, self._root = fsspec.core.url_to_fs(url)
        except ImportError as error:
            extra = _EXTRAS.get(protocol)
            hint = f"install 'somatlas[{extra}]'" if extra else "install that package"
            raise InputError(f"{url} needs a package that is missing ({error}): {hint}") from None
        except Exception as error:  # whatever a file system's own set-up raises
            raise InputError(f"{url} cannot be used ({_reason(error)})") from None
        self._whole = protocol in _OBJECT_STORES

    def versions(self) -> dict[str, str]:
        """Name -> version of every file, hidden ones (unfinished, or a claim) left out."""
        with self._told("read"):
            self._fs.invalidate_cache()
            found = self._fs.find(self._root, detail=True)
        return {
            self._name(path): _version(info)
            for path, info in found.items()
            if info.get("type") == "file" and not path.rsplit("/", 1)[-1].startswith((".", "/"))
        }

    def get(self, names: Sequence[str], into: Path) -> None:
        """Fetch files into a local folder; raises FileNotFoundError where one is gone."""
        targets = [into / name for name in names]
        for parent in {target.parent for target in targets}:
            parent.mkdir(parents=True, exist_ok=True)
        with self._told("read", FileNotFoundError):
            self._fs.get(list(map(self._path, names)), list(map(str, targets)))

    def put(self, path: Path, name: str) -> str:
        """Write a local file's content under a name; returns its version there."""
        target = self._path(name)
        with self._told("written"):
            if self._whole:
                self._fs.put_file(str(path), target)
            else:
                folder, _, last = target.rpartition("/")
                unfinished = f"{folder}/.{last}.{uuid.uuid4().hex[:8]}.part"
                self._fs.makedirs(folder, exist_ok=True)
                self._fs.put_file(str(path), unfinished)
                self._fs.mv(unfinished, target)
            self._fs.invalidate_cache()
            return _version(self._fs.info(target))

    def remove(self, name: str) -> None:
        """Remove a file that may be gone."""
        with self._told("written"), suppress(FileNotFoundError):
            self._fs.invalidate_cache()
            self._fs.rm_file(self._path(name))

    def read(self, name: str) -> bytes | None:
        """A small file's content, None where there is none."""
        with self._told("read"):
            self._fs.invalidate_cache()
            try:
                content: bytes = self._fs.cat_file(self._path(name))
            except FileNotFoundError:
                return None
            return content

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    def _name(self, path: str) -> str:
        return path[len(self._root.rstrip("/")) + 1 :]

    @contextmanager
    def _told(self, what: str, *passed: type[Exception]) -> Iterator[None]:
        """Tell of whatever goes wrong in one sentence: each protocol's package has its own
        exceptions, of no common kind."""
        try:
            yield
        except passed:
            raise
        except Exception as error:
            lasting = isinstance(error, PermissionError | FileNotFoundError | NotImplementedError)
            raise UnreachableError(
                f"{self.url} cannot be {what} ({_reason(error)}): check the URL, the network and "
                "the credentials",
                lasting=lasting,
            ) from None


def _version(info: Mapping[str, Any]) -> str:
    found = next((info[key] for key in _VERSION if info.get(key) is not None), None)
    if isinstance(found, datetime):  # some systems give one as the other
        found = found.timestamp()
    if isinstance(found, float):
        found = f"{found:.6f}"
    return f"{info.get('size') or 0} {found}"


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return without_password(lines[0]) if lines else type(error).__name__
