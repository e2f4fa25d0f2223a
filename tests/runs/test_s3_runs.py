"""Runs on a real S3-compatible server, killed and resumed on other machines."""

from __future__ import annotations

import logging
import multiprocessing
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer
from s3fs import S3FileSystem

import killed_run
from command import SMALL, Command, assert_begins_as
from somatlas.runs import claim, places

SECRET = "hunter2secretkey"
KILLED_AT = ("representations/positive-00000.safetensors", "study.db", "completions/base.jsonl")


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """What a machine needs to reach the server, which has a bucket."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    given = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "me",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    for name, value in {**given, "SOMATLAS_CACHE": str(tmp_path / "cache")}.items():
        monkeypatch.setenv(name, value)
    S3FileSystem.clear_instance_cache()
    S3FileSystem().makedirs("bucket", exist_ok=True)
    yield given
    server.stop()
    S3FileSystem.clear_instance_cache()


@pytest.mark.slow
def test_a_run_killed_again_and_again_on_one_machine_after_another_ends_as_one_that_was_not(
    environment: dict[str, str],
    command: Command,
    tiny_folder: Path,
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """kill -9 once a file is at the URL; each start has another cache, and nothing else."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["killed_run"])
    arguments = ["run", str(tiny_folder), *SMALL, "--out", "s3://bucket/runs"]
    bucket = S3FileSystem()
    for machine, name in enumerate(KILLED_AT):
        here = {**environment, "SOMATLAS_CACHE": str(tmp_path / f"cache{machine}")}
        process = context.Process(target=killed_run.main_at_url, args=(arguments, here))
        process.start()
        while process.is_alive() and not bucket.exists(f"bucket/runs/tiny/default/{name}"):
            time.sleep(0.05)
            bucket.invalidate_cache()
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    monkeypatch.setattr(claim, "SILENT_S", 1.0)
    result = command.until("judge", *arguments[1:])
    assert result.code == 0, result.err
    assert "search: done before" in result.err  # by another machine
    assert_begins_as(places.local_root("s3://bucket/runs") / "tiny/default", whole)
    bucket.get("bucket/runs/tiny/default/", f"{tmp_path}/there/", recursive=True)
    assert_begins_as(tmp_path / "there", whole)
    for path in (tmp_path / "there").rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes()


@pytest.mark.parametrize("wrong", ["bucket", "credentials", "address"])
def test_a_url_that_cannot_be_reached_is_told_before_the_model_is_loaded(
    wrong: str,
    environment: dict[str, str],
    command: Command,
    tiny_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("somatlas.runs.folder.load_model", lambda *_a, **_k: pytest.fail("loaded"))
    out, said = "s3://bucket/runs", "s3://bucket/runs/tiny/default cannot be read"
    if wrong == "bucket":
        out, said = "s3://none/runs", "The specified bucket does not exist"
    elif wrong == "credentials":
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        said = "Unable to locate credentials"
    else:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        monkeypatch.setattr(S3FileSystem, "retries", 1)
        said = "Could not connect to the endpoint"
    S3FileSystem.clear_instance_cache()
    message = command.fails("run", tiny_folder, *SMALL, "--out", out)
    assert said in message
    assert SECRET not in message
