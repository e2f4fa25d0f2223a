"""Many processes, one study: on a real PostgreSQL, with one killed in the middle of a trial."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

import killed_run
import postgres
from command import Command, SMALL, contents
from search_worker import SPACE
from somatlas import InputError
from somatlas.searches import open_storage

BUDGET = 24


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    folder = postgres.programs()
    if folder is None:
        assert "SOMATLAS_NEEDS_POSTGRES" not in os.environ, "the gate must have PostgreSQL"
        pytest.skip("PostgreSQL is not installed (Debian: apt install postgresql)")
    with postgres.server(folder) as url:
        yield url


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    line = [sys.executable, str(Path(__file__).parents[1] / "search_worker.py"), *map(str, arguments)]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_three_workers_meet_the_budget_exactly_though_one_is_killed(
    database: str, tmp_path: Path
) -> None:
    """The killed one takes itself for another machine, so that its heartbeat alone tells."""
    mark = tmp_path / "mark"
    doomed = start(database, BUDGET, "doomed", mark)
    others = [start(database, BUDGET, name) for name in ("first", "second")]
    while not mark.exists() and doomed.poll() is None:
        time.sleep(0.05)
    doomed.send_signal(signal.SIGKILL)
    doomed.wait()
    for worker in others:
        _, err = worker.communicate(timeout=120)
        assert worker.returncode == 0, err
    study = optuna.load_study(study_name="shared", storage=database)
    complete = study.get_trials(states=(TrialState.COMPLETE,))
    points = [SPACE.canonical(t.params) for t in complete]
    assert len(complete) == BUDGET
    assert len(set(points)) == BUDGET
    assert not study.get_trials(states=(TrialState.RUNNING,))
    lost = tuple(map(int, mark.read_text().split(",")))
    assert lost in points  # tried anew
    workers = {t.user_attrs["worker"] for t in complete}
    assert len(workers) == 3


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
def test_workers_on_one_machine_make_the_same_run(
    command: Command, tiny_folder: Path, tmp_path: Path
) -> None:
    """Two processes share the shards; a search of every point is the same whoever makes it."""
    flags = (*SMALL, "--k", "1", "--trials", "6", "--out", tmp_path)
    assert command("run", tiny_folder, *flags).code == 0
    result = command("run", tiny_folder, *flags, "--name", "shared", "--workers", "2")
    assert result.code == 0, result.err
    alone, shared = (contents(tmp_path / "tiny" / name) for name in ("default", "shared"))
    assert {k: v for k, v in alone.items() if k.startswith("repr")} == {
        k: v for k, v in shared.items() if k.startswith("repr")
    }
    assert alone["evaluation"] == shared["evaluation"]


def test_parts_make_the_whole(command: Command, tiny_folder: Path, tmp_path: Path) -> None:
    flags = ("--train-prompts", "24", "--out", tmp_path)
    assert command("represent", tiny_folder, *flags, "--name", "whole").code == 0
    for part in ("0/2", "1/2"):
        result = command("represent", tiny_folder, *flags, "--name", "parts", "--part", part)
        assert result.code == 0, result.err
    assert "no finished stage 'represent'" in command.fails(
        "map", tiny_folder, *flags, "--name", "parts", "--grid", "2x2", "--layer", "1"
    )
    assert command("represent", tiny_folder, *flags, "--name", "parts").code == 0
    for path in (tmp_path / "tiny" / "whole" / "representations").iterdir():
        other = tmp_path / "tiny" / "parts" / "representations" / path.name
        assert other.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("part", ["2/2", "1", "x/2", "0/0"])
def test_parts_that_are_none(command: Command, tiny_folder: Path, part: str) -> None:
    assert "setting 'part'" in command.fails("represent", tiny_folder, "--part", part)


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
