"""A real PostgreSQL server of the test's own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PASSWORD = "correct-horse"


def programs() -> Path | None:
    """The folder of initdb and postgres, or None where PostgreSQL is not installed."""
    found = shutil.which("initdb")
    if found and (Path(found).parent / "postgres").exists():
        return Path(found).parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))  # a client alone has none
    return versions[-1].parent if versions else None


@contextmanager
def server(bin_folder: Path) -> Iterator[str]:
    """Start a server on a free port, and yield the URL of its database."""
    user = "postgres" if os.geteuid() == 0 else None  # it will not run as root
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        folder.chmod(0o755)
        data, password = folder / "data", folder / "password"
        data.mkdir()
        password.write_text(PASSWORD)
        if user is not None:
            shutil.chown(data, user)
            shutil.chown(password, user)
        subprocess.run(
            [
                *(bin_folder / "initdb", "-D", data, "-U", "somatlas", "--auth=scram-sha-256"),
                *("--pwfile", password, "--no-sync"),
            ],
            user=user,
            cwd=data,
            check=True,
            capture_output=True,
        )
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        process = subprocess.Popen(
            [bin_folder / "postgres", "-D", data, "-p", str(port), "-k", data, "-F"],
            user=user,
            cwd=data,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            _wait(port)
            yield f"postgresql+psycopg://somatlas:{PASSWORD}@127.0.0.1:{port}/postgres"
        finally:
            process.send_signal(signal.SIGINT)  # at once, whoever is still connected
            process.wait(timeout=30)


def _wait(port: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError("PostgreSQL did not start")
