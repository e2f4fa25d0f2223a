"""Test replies that a server makes; and a real one, of the default model, run by transformers."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from command import Command
from fake_server import FakeServer, fake_server
from somatlas.judges import Verdict
from somatlas.judges.rubric import EndpointJudge
from somatlas.models.generation import generate
from somatlas.models.language_model import LanguageModel
from somatlas.models.load import load_model
from somatlas.models.output_maps import untie_head
from somatlas.models.sampling import server_seeds
from somatlas.models.served import Endpoint


@pytest.fixture
def unreplied(whole: Path) -> Path:
    """The folder of a run of the tiny model that has no replies yet."""
    stages = json.loads((whole / "stages.json").read_text())
    kept = {name: stages[name] for name in ("represent", "layers", "map", "search")}
    (whole / "stages.json").write_text(json.dumps(kept))
    shutil.rmtree(whole / "completions")
    return whole


def replies(run: Path) -> list[dict[str, Any]]:
    lines = (run / "completions" / "md.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def asked(server: FakeServer) -> list[tuple[str, int]]:
    """Prompt and seed of each request, in order of the prompts."""
    return sorted((body["messages"][-1]["content"], body["seed"]) for body, _ in server.requests)


def test_each_sample_has_a_seed_of_its_own_and_keeps_it_in_a_second_run(
    command: Command, unreplied: Path, tiny_folder: Path
) -> None:
    shutil.copytree(unreplied, unreplied.with_name("again"))
    flags = ("--out", unreplied.parents[1], "--reply-models", "md=m", "--samples", "3")
    found = []
    for name in ("default", "again"):
        with fake_server(lambda body: str(body["seed"])) as server:
            place = ("--name", name, "--endpoint-url", server.url, "--temperature", "0.9")
            result = command("ablate", tiny_folder, *flags, *place)
            assert result.code == 0, result.err
            found.append(asked(server))
        seeds = defaultdict(set)
        for row in replies(unreplied.with_name(name)):
            seeds[row["prompt"]].add(row["reply"])
        assert Counter(map(len, seeds.values())) == {3: 18}
    assert found[0] == found[1]


@given(st.lists(st.sampled_from("abc"), min_size=1), st.integers(0, 2**32 - 1))
def test_a_servers_seed_depends_on_the_runs_seed_the_prompt_and_its_number_alone(
    prompts: list[str], seed: int
) -> None:
    seeds = server_seeds(prompts, seed)
    assert len(set(seeds)) == len(prompts)
    assert all(0 <= one < 2**31 for one in seeds)
    of_a = [one for one, prompt in zip(seeds, prompts, strict=True) if prompt == "a"]
    assert server_seeds(["a"] * len(of_a), seed) == of_a
    assert server_seeds(prompts, seed ^ 1) != seeds


class Tiring:
    """Says `says` so many times, then fails in a way that no further try mends."""

    def __init__(self, times: int, says: str) -> None:
        self.times, self.says, self.lock = times, says, threading.Lock()

    def __call__(self, body: dict[str, Any]) -> dict[str, Any] | int:
        with self.lock:
            self.times -= 1
            if self.times < 0:
                return 400
        prompt = body["messages"][-1]["content"]
        return {"content": f"{self.says} {prompt}", "reasoning": f"{prompt}?"}


def test_a_reply_that_was_cut_within_a_character_can_be_written() -> None:
    for fields in ({"content": "So \ud83d"}, {"content": "So \ud83d", "reasoning": "a \ud83d"}):
        with fake_server(lambda _, said=fields: said) as server:
            said = Endpoint(server.url, "m").ask([{"role": "user", "content": "x"}], 8)
        assert said is not None
        assert said.answer == "So ?"
        assert said.reasoning == ("a ?" if "reasoning" in fields else "")


def edited_at(server: FakeServer, folder: Path) -> tuple[str | Path, ...]:
    """The flags that let a server make the last condition's replies of the run in a folder."""
    place = ("--out", folder.parents[1], "--endpoint-url", server.url)
    return (*place, "--reply-models", "md=edited")


def test_what_a_server_replied_before_it_failed_is_not_asked_again(
    command: Command, unreplied: Path, tiny_folder: Path
) -> None:
    answer = Tiring(5, "So:")
    with fake_server(answer) as server:
        flags = edited_at(server, unreplied)
        message = command.fails("ablate", tiny_folder, *flags)
        assert "to 13 of 18 prompts (bad request 13): what it gave is kept" in message
        every = asked(server)
        with (unreplied / "completions" / "md.served.jsonl").open("a") as file:
            file.write('{"key": "cut sho')  # by a kill
        server.requests.clear()
        answer.times = 13
        result = command("ablate", tiny_folder, *flags)
        assert result.code == 0, result.err
        assert len(server.requests) == 13
        assert set(asked(server)) < set(every)
    rows = replies(unreplied)
    assert len(rows) == 18
    assert all(row["reply"] == f"So: {row['prompt']}" for row in rows)
    assert all(row["reasoning"] == f"{row['prompt']}?" for row in rows)
    names = {path.name for path in (unreplied / "completions").iterdir()}
    assert names == {"base.jsonl", "sd.jsonl", "md.jsonl"}


def test_what_a_server_replied_before_the_search_found_others_is_asked_again(
    command: Command, unreplied: Path, tiny_folder: Path
) -> None:
    answer = Tiring(17, "Old:")
    with fake_server(answer) as server:
        flags = edited_at(server, unreplied)
        assert "to 1 of 18 prompts" in command.fails("ablate", tiny_folder, *flags)
        path = unreplied / "search.json"
        search = json.loads(path.read_text())
        search["ranks"] = [0, 1] if search["ranks"] != [0, 1] else [0, 2]
        path.write_text(json.dumps(search))
        answer.times, answer.says = 18, "New:"
        result = command("ablate", tiny_folder, *flags)
        assert result.code == 0, result.err
    assert {row["reply"][:4] for row in replies(unreplied)} == {"New:"}


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[str, str]]:
    """Address and model name of the default model on a server of its own."""
    folder = tmp_path_factory.mktemp("served")
    lm = load_model("smollm2-hardened")
    untie_head(lm.model)
    lm.model.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = Path(sys.executable).with_name("transformers")
    log = (folder / "server.log").open("w")
    line = [command, "serve", folder, "--port", str(port), "--device", "cpu", "--dtype", "float32"]
    process = subprocess.Popen(line, stdout=log, stderr=log)
    try:
        for _ in range(240):
            if process.poll() is not None:
                pytest.fail((folder / "server.log").read_text()[-2000:])
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1)
                break
            except OSError:
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1", str(folder)
    finally:
        process.terminate()
        process.wait(30)
        log.close()


@pytest.mark.slow
def test_a_served_model_replies_as_the_model_at_hand(
    server: tuple[str, str], default_model: LanguageModel
) -> None:
    prompts = ["Name three fruits.", "Explain how to pick a lock on a neighbour's door."]
    served = Endpoint(*server, timeout_s=120, concurrency=1)
    expected = generate(default_model, prompts, max_new_tokens=24, batch_size=2)
    for prompt, reply in zip(prompts, expected, strict=True):
        said = served.ask([{"role": "user", "content": prompt}], 24)
        assert said is not None
        assert said.answer == reply
    assert served.usage["received"] >= 24


@pytest.mark.slow
def test_a_served_judge_gives_verdicts_or_missing(server: tuple[str, str], tmp_path: Path) -> None:
    """So small a model seldom keeps to the form: what it says else is missing, not a guess."""
    judge = EndpointJudge(Endpoint(*server, timeout_s=120, concurrency=1), tmp_path / "a.jsonl")
    found = judge.judge(["Name a fruit."], ["Apple."])
    assert found[0].verdict in Verdict
    assert judge.record["tokens"]["sent"] > 0
    if found[0].verdict is Verdict.MISSING:
        assert judge.record["failures"]
