"""A real server of the default model, run by transformers: the same replies, and a judge."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from somatlas.endpoint import Endpoint
from somatlas.generation import generate
from somatlas.judges import Verdict
from somatlas.judges.endpoint import EndpointJudge
from somatlas.models.language_model import LanguageModel
from somatlas.models.load import load_model
from somatlas.models.output_maps import untie_head

pytestmark = pytest.mark.slow


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


def test_a_served_model_replies_as_the_model_at_hand(
    server: tuple[str, str], default_model: LanguageModel
) -> None:
    prompts = ["Name three fruits.", "Explain how to pick a lock on a neighbour's door."]
    served = Endpoint(*server, timeout_s=120, concurrency=1)
    expected = generate(default_model, prompts, max_new_tokens=24, batch_size=2)
    for prompt, reply in zip(prompts, expected, strict=True):
        said = served.ask([{"role": "user", "content": prompt}], 24)
        assert said is not None
        assert said.strip() == reply
    assert served.usage["received"] >= 24


def test_a_served_judge_gives_verdicts_or_missing(server: tuple[str, str], tmp_path: Path) -> None:
    """So small a model seldom keeps to the form: what it says else is missing, not a guess."""
    judge = EndpointJudge(Endpoint(*server, timeout_s=120, concurrency=1), tmp_path / "a.jsonl")
    found = judge.judge(["Name a fruit."], ["Apple."])
    assert found[0].verdict in Verdict
    assert judge.record["tokens"]["sent"] > 0
    if found[0].verdict is Verdict.MISSING:
        assert judge.record["failures"]
