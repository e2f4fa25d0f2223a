"""One command at a time writes a folder at a URL, as far as stores without locks allow.

Who writes leaves `.writer.json` there and renews it every `BEAT_S` seconds. A command that finds
one watches it: if it is not renewed for `SILENT_S` seconds, its writer is taken to be dead. No
clocks are compared. Two commands that begin within the same moment may both pass; whoever finds
another's name in the file, at its next beat, stops before it writes anything more.
"""

from __future__ import annotations

import json
import os
import platform
import tempfile
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import psutil

from somatlas.errors import InputError
from somatlas.files import from_json
from somatlas.progress import note
from somatlas.runs.remote_folder import RemoteFolder, UnreachableError

NAME = ".writer.json"
BEAT_S = 10.0
SILENT_S = 35.0


def this_process() -> dict[str, Any]:
    """What tells a process of this machine from any other, also one of the same number later."""
    return {"pid": os.getpid(), "started": psutil.Process().create_time()}


def is_running(process: dict[str, Any]) -> bool:
    """Whether a process of this machine is still there."""
    try:  # the same start may be told a second apart, where the clock was set
        started: float = process["started"]
        return abs(psutil.Process(process["pid"]).create_time() - started) < 5
    except psutil.Error:
        return False


class Claim:
    """That this process writes a folder, from `take` until `release`."""

    def __init__(self, remote: RemoteFolder) -> None:
        self.token = uuid.uuid4().hex
        self._remote = remote
        self._stop = threading.Event()
        self._beating = threading.Thread(target=self._beat, daemon=True)
        self._lost = False
        self._beats = 0

    def take(self, last: dict[str, Any] | None) -> None:
        """Raise InputError where another command writes there.

        last : the token and the process that claimed it from this local copy last.
        """
        found = self._found()
        if found is not None and not self._is_dead(found, last):
            raise self._taken(found)
        self._write()
        found = self._found()
        if found is not None and found.get("token") != self.token:
            raise self._taken(found)
        self._beating.start()

    def check(self) -> None:
        """Raise InputError where another command has taken over."""
        if self._lost:
            raise InputError(
                f"another command writes {self._remote.url} now, so this one stops: let it finish"
            )

    def release(self) -> None:
        """Let others write."""
        self._stop.set()
        try:
            if self._beating.is_alive():
                self._beating.join()  # else it might renew what is removed here
            found = self._found()
            if found is not None and found.get("token") == self.token:
                self._remote.remove(NAME)
        except UnreachableError as error:
            note(f"{error}; others wait {SILENT_S:g} s until they write there")

    def _is_dead(self, found: dict[str, Any], last: dict[str, Any] | None) -> bool:
        if last is not None and last["token"] == found.get("token"):
            return not is_running(last)
        note(
            f"{self._remote.url} was being written by {_named(found)}: watching it for "
            f"{SILENT_S:g} s for a sign of life"
        )
        end = time.monotonic() + SILENT_S
        while time.monotonic() < end:
            time.sleep(min(1.0, SILENT_S))
            if self._found() != found:
                return self._found() is None
        return True

    def _taken(self, found: dict[str, Any]) -> InputError:
        return InputError(
            f"{self._remote.url} is being written by {_named(found)}: let that command finish, or "
            "give another --name"
        )

    def _found(self) -> dict[str, Any] | None:
        content = self._remote.read(NAME)
        try:
            found = None if content is None else from_json(content)
        except ValueError:
            return {}
        return found if isinstance(found, dict) or found is None else {}

    def _write(self) -> None:
        self._beats += 1
        record = {"token": self.token, "machine": platform.node(), **this_process()}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "claim.json"
            path.write_text(json.dumps({**record, "beat": self._beats}), encoding="utf-8")
            self._remote.put(path, NAME)

    def _beat(self) -> None:
        while not self._stop.wait(BEAT_S):
            try:
                found = self._found()
                if found is not None and found.get("token") != self.token:
                    self._lost = True
                    return
                if not self._stop.is_set():
                    self._write()
            except UnreachableError:
                continue  # what is pushed next tells of it


def _named(found: dict[str, Any]) -> str:
    return f"process {found.get('pid', '?')} on {found.get('machine', 'another machine')}"
