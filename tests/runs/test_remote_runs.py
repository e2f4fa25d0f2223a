"""Runs at a URL: what is pushed and when, who may write, and what goes wrong."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from auditing import plan_file
from command import SMALL, Command, assert_begins_as, contents
from somatlas import InputError, open_run
from somatlas.files import append_rows, changed, remove, write_text
from somatlas.report import run_figures
from somatlas.runs import claim, local_copy, places
from somatlas.runs.claim import Claim, this_process
from somatlas.runs.local_copy import LocalCopy
from somatlas.runs.places import bring, claimed, local_root
from somatlas.runs.remote_folder import RemoteFolder

RUNS = "memory://runs"
NAME = "tiny/default"
KIND = {"a": "write", "b": "write", "c": "grow", "d": "grow"}  # of a program's files
NAMES = sorted(KIND)


class KilledError(BaseException):
    """Stands for kill -9: what has raised it has no effect on the URL any more."""


@pytest.fixture(autouse=True)
def nothing_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty memory:, a cache of the test's own, and no waiting."""
    monkeypatch.setenv("SOMATLAS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(claim, "SILENT_S", 0.05)
    monkeypatch.setattr(claim, "BEAT_S", 1e6)
    monkeypatch.setattr(places, "_copies", {})
    MemoryFileSystem.store.clear()
    yield
    MemoryFileSystem.store.clear()


def at_the_url(url: str = f"{RUNS}/{NAME}") -> dict[str, bytes]:
    remote = RemoteFolder(url)
    return {name: remote.read(name) or b"" for name in remote.versions()}


def dies(when: Callable[[int, str], bool], patch: pytest.MonkeyPatch) -> None:
    """From the first change of which `when` says so, by number and name, none reaches the URL."""
    done: list[str] = []
    dead: list[str] = []

    def unless_dead(act: Callable[..., Any]) -> Callable[..., Any]:
        def do(*arguments: Any) -> Any:
            name = arguments[-1]
            if dead or when(len(done), name):
                dead.append(name)
                raise KilledError
            done.append(name)
            return act(*arguments)

        return do

    for name in ("put", "remove"):
        patch.setattr(RemoteFolder, name, unless_dead(getattr(RemoteFolder, name)))


def elsewhere(patch: pytest.MonkeyPatch, cache: Path) -> None:
    """Another machine: another cache, and a process that holds no copy yet."""
    patch.setenv("SOMATLAS_CACHE", str(cache))
    patch.setattr(places, "_copies", {})


@st.composite
def programs(draw: st.DrawFn) -> list[tuple[str, str]]:
    """What is done to files, one after the other."""
    names = draw(st.lists(st.sampled_from(NAMES), min_size=2, max_size=10))
    return [(draw(st.sampled_from([KIND[name], KIND[name], "remove"])), name) for name in names]


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(
    program=[("write", "a"), ("grow", "c"), ("grow", "c"), ("remove", "a"), ("grow", "c")],
    killed=4,
    pause=1e6,
)
@given(program=programs(), killed=st.integers(1, 30), pause=st.sampled_from([0.0, 1e6]))
def test_what_is_at_the_url_is_always_a_moment_of_the_local_folder(
    program: list[tuple[str, str]],
    killed: int,
    pause: float,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Killed at any operation, with files that grow pushed at once or after a pause."""
    cache = tmp_path_factory.mktemp("cache")
    MemoryFileSystem.store.clear()
    now: dict[str, bytes] = {}
    moments = [dict(now)]
    with pytest.MonkeyPatch.context() as patch:
        elsewhere(patch, cache)
        patch.setattr(local_copy, "PAUSE_S", pause)
        folder = local_root(RUNS) / NAME
        bring(RUNS, folder)
        dies(lambda number, _: number == killed, patch)
        try:
            with claimed(folder):
                for number, (act, name) in enumerate(program):
                    path = folder / name
                    if act == "remove":
                        now.pop(name, None)
                        moments.append(dict(now))
                        remove(path)
                    elif act == "write":
                        now[name] = str(number).encode()
                        moments.append(dict(now))
                        write_text(path, str(number))
                    else:
                        row = {"n": number}
                        now[name] = now.get(name, b"") + json.dumps(row).encode() + b"\n"
                        moments.append(dict(now))
                        append_rows(path, [row])
        except KilledError:
            pass
        else:
            assert at_the_url() == now
    assert at_the_url() in moments
    with pytest.MonkeyPatch.context() as patch:
        elsewhere(patch, tmp_path_factory.mktemp("other"))
        folder = local_root(RUNS) / NAME
        bring(RUNS, folder)
        found = {p.name: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        assert found == at_the_url()


def opened(name: str = NAME) -> Path:
    folder = local_root(RUNS) / name
    bring(RUNS, folder)
    return folder


def test_a_copy_that_is_ahead_is_pushed_and_one_that_is_behind_is_made_equal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = opened()
    with claimed(folder):
        write_text(folder / "a", "1")
        write_text(folder / "b", "1")
    (folder / "a").write_text("2, and killed before it was pushed")
    (folder / "b").unlink()  # by someone who clears the cache
    with claimed(opened()):
        pass
    assert at_the_url() == {"a": b"2, and killed before it was pushed", "b": b"1"}
    with monkeypatch.context() as patch:
        elsewhere(patch, tmp_path / "other")
        other = opened()
        with claimed(other):
            write_text(other / "c", "3")
            remove(other / "b")
    (folder / "a").write_text("4, which the other machine has not seen")
    (folder / "d").write_text("5")
    with monkeypatch.context() as patch:  # killed in the middle of it
        take_in = LocalCopy._take_in

        def killed(self: LocalCopy, *arguments: Any) -> None:
            take_in(self, *arguments)
            raise KilledError

        patch.setattr(LocalCopy, "_take_in", killed)
        with pytest.raises(KilledError):
            opened()
    with claimed(opened()):
        pass
    assert at_the_url().keys() == {"a", "c"}
    found = {p.name: p.read_text() for p in folder.iterdir()}
    assert found == {"a": "2, and killed before it was pushed", "c": "3"}


def test_a_database_is_pushed_as_its_last_transaction_left_it(tmp_path: Path) -> None:
    folder = opened()
    folder.mkdir(parents=True)
    with claimed(folder), closing(sqlite3.connect(folder / "study.db")) as study:
        study.execute("create table trials (n)")
        study.execute("insert into trials values (1)")
        study.commit()
        study.execute("insert into trials values (2)")  # not committed
        changed(folder / "study.db")
        (tmp_path / "read.db").write_bytes(at_the_url()["study.db"])
        with closing(sqlite3.connect(tmp_path / "read.db")) as read:
            assert read.execute("select n from trials").fetchall() == [(1,)]


def test_one_command_writes_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = opened()
    monkeypatch.setattr(claim, "BEAT_S", 0.02)
    with claimed(folder):
        monkeypatch.setattr(claim, "SILENT_S", 30.0)  # ends at the first sign of life
        elsewhere(monkeypatch, tmp_path / "other")
        other = opened()
        with pytest.raises(InputError, match="is being written by process"), claimed(other):
            pass
    with claimed(other):
        write_text(other / "a", "1")
    assert RemoteFolder(f"{RUNS}/{NAME}").read(claim.NAME) is None


def test_a_writer_that_is_gone_is_followed_at_once_from_its_own_copy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    remote = RemoteFolder(f"{RUNS}/{NAME}")
    monkeypatch.setattr(claim, "SILENT_S", 60.0)
    gone = Claim(remote)
    gone.take(None)
    start = time.monotonic()
    later = Claim(remote)
    later.take({**this_process(), "started": 0.0, "token": gone.token})
    assert time.monotonic() - start < 10
    with pytest.raises(InputError, match="let that command finish"):
        Claim(remote).take({**this_process(), "token": later.token})
    later.release()


def test_who_is_taken_over_writes_no_more(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder, content = opened(), tmp_path / "claim.json"
    content.write_text('{"token": "another"}')
    monkeypatch.setattr(claim, "BEAT_S", 0.02)

    def writes_on() -> None:
        with claimed(folder):
            RemoteFolder(f"{RUNS}/{NAME}").put(content, claim.NAME)
            for number in range(1000):
                time.sleep(0.02)
                write_text(folder / f"{number}", "late")

    with pytest.raises(InputError, match="so this one stops"):
        writes_on()
    assert len(at_the_url()) < len(list(folder.iterdir()))
    assert RemoteFolder(f"{RUNS}/{NAME}").read(claim.NAME) == b'{"token": "another"}'


@pytest.mark.parametrize(("error", "tries"), [(OSError("reset"), 3), (PermissionError("no"), 1)])
def test_a_url_that_fails_is_tried_again_unless_that_is_no_use(
    error: OSError, tries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = opened()
    asked: list[str] = []
    clock = iter(range(0, 10**6, 300))
    put = MemoryFileSystem.put_file

    def fails(fs: MemoryFileSystem, path: str, target: str, **more: Any) -> None:
        if "writer" in target:
            return put(fs, path, target, **more)
        asked.append(target)
        raise error

    monkeypatch.setattr(MemoryFileSystem, "put_file", fails)
    monkeypatch.setattr(local_copy.time, "sleep", lambda _: None)
    monkeypatch.setattr(local_copy.time, "monotonic", lambda: float(next(clock)))
    with pytest.raises(InputError, match="the same command goes on from there"), claimed(folder):
        write_text(folder / "a", "1")
    assert len(asked) == tries
    assert (folder / "a").read_text() == "1"


def test_a_run_that_is_killed_goes_on_from_another_cache(
    command: Command,
    tiny_folder: Path,
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Killed among the conditions of ablate; nothing is made again but what was not pushed."""
    line = (tiny_folder, *SMALL, "--out", RUNS)
    with monkeypatch.context() as patch:
        dies(lambda _, name: name == "completions/md.jsonl", patch)
        with pytest.raises(KilledError):
            command.until("judge", *line)
    began = at_the_url()
    assert "completions/sd.jsonl" in began
    assert "completions/md.jsonl" not in began
    elsewhere(monkeypatch, tmp_path / "other")
    monkeypatch.setattr("somatlas.runs.pipeline.represent_stage", lambda _: pytest.fail("again"))
    result = command.until("judge", *line)
    assert result.code == 0, result.err
    assert "search: done before" in result.err
    folder = local_root(RUNS) / NAME
    assert f"{RUNS}/{NAME} (local copy: {folder})" in result.out
    assert_begins_as(folder, whole)
    there = at_the_url()
    files = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    assert there.keys() == files.keys()
    for name, content in there.items():
        assert name == "study.db" or content == files[name].read_bytes()
    assert f'out = "{RUNS}"' in there["config.toml"].decode()


@pytest.fixture
def unloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands end where they would load the model."""

    def load(*_: object, **__: object) -> None:
        raise InputError("loaded")

    monkeypatch.setattr("somatlas.runs.folder.load_model", load)


@pytest.mark.usefixtures("unloaded")
def test_an_audit_goes_on_from_another_cache(
    command: Command, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_file(tmp_path, "sd = 1")
    line = ("audit", tiny_folder, "--plan", plan, "--refusal-tokens", "10,20", "--out", RUNS)
    assert "loaded" in command.fails(*line)
    assert at_the_url(f"{RUNS}/tiny/audit").keys() == {"plan.json"}
    elsewhere(monkeypatch, tmp_path / "other")
    assert "holds an audit with budget = 1, not 4" in command.fails(*line, "--budget", "4")


@pytest.mark.usefixtures("unloaded")
@pytest.mark.parametrize(
    ("name", "line"),
    [("default", ("run",)), ("audit", ("audit",)), ("sweep", ("sweep", "--over", "seed=0-1"))],
)
def test_what_another_command_writes_is_refused_before_the_model_is_loaded(
    name: str,
    line: tuple[str, ...],
    command: Command,
    tiny_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(claim, "BEAT_S", 0.02)
    monkeypatch.setattr(claim, "SILENT_S", 30.0)
    other = Claim(RemoteFolder(f"{RUNS}/tiny/{name}"))
    other.take(None)
    message = command.fails(line[0], tiny_folder, *line[1:], "--out", RUNS)
    assert f"{RUNS}/tiny/{name} is being written by process" in message
    other.release()


@pytest.mark.parametrize("protocol", ["memory", "file"])
def test_a_run_is_read_from_its_url(
    protocol: str, command: Command, whole: Path, tmp_path: Path
) -> None:
    home = RUNS if protocol == "memory" else f"file://{tmp_path}/there"
    url = f"{home}/{NAME}"
    fs, root = fsspec.core.url_to_fs(url)
    fs.put(f"{whole}/", f"{root}/", recursive=True)
    fs.rm_file(f"{root}/report.html")
    result = command("report", url)
    assert result.code == 0, result.err
    copy = local_root(home) / NAME
    assert at_the_url(url)["report.html"] == (copy / "report.html").read_bytes()
    assert (copy / "representations/index.json").exists() is False  # no report reads them
    assert command("compare", url, whole).code == 0
    assert run_figures(url).keys() == run_figures(whole).keys()
    assert open_run(url).evaluation == open_run(whole).evaluation
    assert open_run(url).store.missing() == []
    left = contents(whole)
    assert {n: v for n, v in contents(copy).items() if n in left} == left


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("s3://me:hunter2@bucket/runs", "must not hold a password"),
        ("nonsense://bucket/runs", "cannot be used (Protocol not known: nonsense"),
        ("simplecache::memory://runs", "without '::'"),
    ],
)
def test_a_url_that_cannot_be_is_refused(
    out: str, said: str, command: Command, tiny_folder: Path
) -> None:
    message = command.fails("run", tiny_folder, "--out", out)
    assert said in message
    assert "hunter2" not in message


def test_a_missing_package_is_named(
    command: Command, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(_url: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    message = command.fails("run", tiny_folder, "--out", "s3://bucket/runs")
    assert "Install s3fs to access S3" in message
    assert "install 'somatlas[s3]'" in message


def test_a_url_without_a_run_is_told(command: Command) -> None:
    assert "is no run folder" in command.fails("report", f"{RUNS}/{NAME}")
    assert "it must end in /MODEL/NAME" in command.fails("report", "memory://runs")
