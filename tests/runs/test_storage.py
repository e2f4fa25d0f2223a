"""A study in a database, on a real PostgreSQL; runs that are killed at any moment."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

import killed_run
import postgres
from command import SMALL, Command, contents
from somatlas import InputError
from somatlas.searches import open_storage


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    folder = postgres.programs()
    if folder is None:
        assert "TESTS_NEED_POSTGRES" not in os.environ, "the gate must have PostgreSQL"
        pytest.skip("PostgreSQL is not installed (Debian: apt install postgresql)")
    with postgres.server(folder) as url:
        yield url


@pytest.mark.slow
def test_runs_share_a_study_on_a_storage_and_find_the_same(
    database: str, command: Command, tiny_folder: Path, tmp_path: Path
) -> None:
    """Two machines, one after the other: the second finds the budget spent and the same winner."""
    for machine in ("one", "two"):
        place = ("--out", tmp_path / machine, "--storage", database)
        result = command("run", tiny_folder, *SMALL, *place)
        assert result.code == 0, result.err
        folder = tmp_path / machine / "tiny" / "default"
        assert not (folder / "study.db").exists()
        for path in folder.rglob("*"):
            assert not path.is_file() or postgres.PASSWORD.encode() not in path.read_bytes()
    one, two = (contents(tmp_path / m / "tiny" / "default") for m in ("one", "two"))
    assert one == two
    other = command.fails(
        "run", tiny_folder, *SMALL, "--seed", "5", "--out", tmp_path / "three",
        "--storage", database,
    )  # fmt: skip
    assert "holds a study 'tiny/default' made with seed = 0, not 5" in other


def test_a_wrong_password_is_not_echoed(database: str) -> None:
    wrong = database.replace(postgres.PASSWORD, "hunter2")
    with pytest.raises(InputError, match="password authentication failed") as caught:
        open_storage(wrong)
    assert "hunter2" not in str(caught.value)


def test_a_storage_that_is_not_there_is_told_before_the_model_is_loaded(
    command: Command, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("somatlas.runs.folder.load_model", lambda *_a, **_k: pytest.fail("loaded"))
    message = command.fails(
        "run", tiny_folder, *SMALL, "--out", tmp_path,
        "--storage", "postgresql+psycopg://me:hunter2@127.0.0.1:1/none",
    )  # fmt: skip
    assert "me:***@127.0.0.1:1/none" in message
    assert "hunter2" not in message


@pytest.mark.slow
def test_runs_killed_again_and_again_end_as_one_that_was_not(
    command: Command, tiny_folder: Path, tmp_path: Path
) -> None:
    """kill -9 at 20 moments; every start goes on with what was done, until runs are whole.

    Each start is a process of its own, forked from a server that has done the imports.
    """
    flags = [*SMALL, "--trials", "6", "--out", str(tmp_path)]
    assert command("run", tiny_folder, *flags).code == 0
    expected = contents(tmp_path / "tiny" / "default")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["killed_run"])

    def begin(name: str) -> multiprocessing.process.BaseProcess:
        arguments = ["run", str(tiny_folder), *flags, "--name", name]
        process = context.Process(target=killed_run.main, args=(arguments,))
        process.start()
        return process

    rng = random.Random(0)
    kills = runs = 0
    while kills < 20:
        name = f"killed{runs}"
        exitcode: int | None = None
        while exitcode != 0:
            process = begin(name)
            process.join(rng.uniform(0, 2) if kills < 20 else 180)
            process.kill()
            process.join()
            exitcode = process.exitcode
            assert exitcode in (0, -signal.SIGKILL)
            kills += exitcode != 0
            assert kills <= 20
        left = contents(tmp_path / "tiny" / name)
        assert {k: v for k, v in left.items() if ".part" not in k} == expected
        runs += 1
