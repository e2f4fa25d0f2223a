"""Whole runs on a local Ray cluster."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from command import SMALL, Command, contents


@pytest.mark.slow
def test_a_driver_that_is_killed_goes_on_and_ends_with_the_files_of_one_process(
    command: Command, tiny_folder: Path, whole: Path
) -> None:
    """Killed while its two workers search; what it had started ends with it."""
    pytest.importorskip("ray")
    place = ["--out", str(whole.parents[1]), "--name", "shared", "--workers", "2"]
    line = [sys.executable, "-m", "somatlas", "run", str(tiny_folder), *SMALL, *place]
    folder = whole.parent / "shared"
    driver = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while driver.poll() is None and not (folder / "study.db").exists():
        time.sleep(0.05)
    time.sleep(0.5)
    driver.send_signal(signal.SIGKILL)
    driver.communicate()
    assert not (folder / "evaluation.json").exists()
    result = command("run", tiny_folder, *SMALL, *place)
    assert result.code == 0, result.err
    assert "search: 4/4" in result.err
    assert contents(folder) == contents(whole)
