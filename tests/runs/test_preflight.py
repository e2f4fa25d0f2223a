"""What a command names is tried before the model is loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from command import SMALL, Command
from conftest import CHAT_TEMPLATE, save_tiny
from fake_server import fake_server
from somatlas.files import read_json

NO_SYSTEM = CHAT_TEMPLATE.replace("{{ m.content }}{% else %}", "{% else %}")
RAISING = "{% if messages[0].role == 'system' %}{{ raise_exception('none') }}{% endif %}"


@pytest.fixture
def unloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading a model fails the test."""
    monkeypatch.setattr("somatlas.runs.folder.load_model", lambda *_, **__: pytest.fail("loaded"))


def test_all_that_is_wrong_is_said_at_once(
    command: Command, unloaded: None, tmp_path: Path
) -> None:
    folder = save_tiny(tmp_path / "m")
    (folder / "chat_template.jinja").write_text(NO_SYSTEM)
    (tmp_path / "labels").write_text("(")
    (tmp_path / "empty.txt").write_text(" ")
    flags = {
        "--positive": tmp_path / "none.jsonl",
        "--negative": tmp_path / "none.csv",
        "--system": "Be brief.",
        "--test-systems": tmp_path / "systems.txt",
        "--behaviour": tmp_path / "labels",
        "--judge": f"classifier:{tmp_path / 'judge'}",
        "--more-judges": "endpoint:x",
        "--endpoint-url": "http://127.0.0.1:9/v1",
        "--judge-template": tmp_path / "template.txt",
        "--perplexity": tmp_path / "empty.txt",
        "--storage": "nothing://here",
        "--device": "cuda:77",
        "--directions": tmp_path / "none.safetensors",
    }
    given = [str(word) for pair in flags.items() for word in pair]
    message = command.fails("run", folder, "--ids", "1", *given, "--out", tmp_path / "runs")
    for named in (
        "none.jsonl does not exist",
        "none.csv does not exist",
        "drops the system prompt 'Be brief.'",
        "systems.txt cannot be read",
        "behaviour file",
        "judge cannot be loaded",
        "nothing answers at http://127.0.0.1:9/v1",
        "judge template",
        "perplexity text",
        "nothing://here",
        "device 'cuda:77' is not there",
        "none.safetensors does not exist",
    ):
        assert named in message, named
    assert message.startswith("somatlas: 12 things are wrong: (1) ")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("flag", ["--system", "--test-systems"])
@pytest.mark.parametrize("template", [RAISING + NO_SYSTEM, NO_SYSTEM])
def test_system_prompts_are_tried_before_the_search(
    command: Command, unloaded: None, tmp_path: Path, flag: str, template: str
) -> None:
    folder = save_tiny(tmp_path / "m")
    (folder / "chat_template.jinja").write_text(template)
    (tmp_path / "systems.txt").write_text("Be brief.\nBe kind.\n")
    value = tmp_path / "systems.txt" if flag == "--test-systems" else "Be brief."
    message = command.fails("run", folder, *SMALL, flag, value, "--out", tmp_path / "runs")
    assert "no system prompt" in message or "drops the system prompt" in message
    assert ("2 things are wrong" in message) == (flag == "--test-systems" and "none" not in message)


def test_tasks_are_looked_up_first(
    command: Command, unloaded: None, tiny_folder: Path, tmp_path: Path
) -> None:
    flags = ("--task-folder", tmp_path / "none", "--tasks", "x", "--out", tmp_path)
    assert "task folder" in command.fails("run", tiny_folder, *flags)


def test_a_stage_is_asked_for_what_it_reads_alone(
    command: Command, tiny_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "c.toml").write_text('judge = "classifier:none"\nperplexity = "none.txt"\n')
    flags = ("--train-prompts", "16", "--config", tmp_path / "c.toml", "--out", tmp_path)
    assert command("represent", tiny_folder, *flags).code == 0  # no judge is needed yet


def test_a_server_that_answers_is_enough() -> None:
    from somatlas.models.served import Endpoint

    with fake_server(lambda _: "x") as server:
        Endpoint(server.url, "m").check()  # it has no list of models


def test_a_finished_run_is_asked_for_nothing(
    command: Command, unloaded: None, tiny_folder: Path, whole: Path
) -> None:
    result = command("run", tiny_folder, "--out", whole.parents[1])
    assert result.code == 0, result.err


def test_what_was_noted_of_the_prompts_is_said_recorded_and_on_the_page(
    command: Command, tmp_path: Path
) -> None:
    folder = save_tiny(tmp_path / "m")
    clock = "{{ strftime_now('%Y') }}" + CHAT_TEMPLATE
    (folder / "chat_template.jinja").write_text(clock)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 40}))
    files = {}
    for side, more in (("positive", "say <user> twice"), ("negative", "x" * 60)):
        files[side] = tmp_path / f"{side}.txt"
        files[side].write_text("\n".join([f"{side} {i}" for i in range(29)] + [more]))
    given = [str(word) for side, file in files.items() for word in (f"--{side}", file)]
    (tmp_path / "c.toml").write_text('grid = "2x2"\nk = 2\ntest_tokens = 4\nsearch_tokens = 4')
    flags = (*given, "--config", tmp_path / "c.toml", "--date", "2030-02-01", "--out", tmp_path)
    result = command("represent", folder, *flags)
    assert result.code == 0, result.err
    notes = read_json(tmp_path / "m" / "default" / "inputs.json")["notes"]
    for words in ("told 2030-02-01", "name a control token", "longer than the 40 positions"):
        (note,) = [note for note in notes if words in note]
        assert f"note: {note}" in result.err
    assert any("nearly the same" in note for note in notes)
    page = command("report", tmp_path / "m" / "default").out.strip()
    assert "2030-02-01" in Path(page).read_text()


@pytest.mark.parametrize("date", ["today", "2030-13-01", "20300101"])
def test_a_date_that_is_none(command: Command, tiny_folder: Path, date: str) -> None:
    assert "'date' cannot be" in command.fails("represent", tiny_folder, "--date", date)


def test_layers_and_tokens_that_the_model_lacks_are_said_before_it_is_loaded(
    command: Command, unloaded: None, tiny_folder: Path, tmp_path: Path
) -> None:
    flags = ("--layers", "1-7", "--refusal-tokens", "10,261", "--token-position", "-999")
    message = command.fails("run", tiny_folder, *flags, "--out", tmp_path / "runs")
    assert "3 things are wrong" in message
    assert "layer 4 is out of range: tiny has layers 0 to 3" in message
    assert "refusal token 261 is not in the vocabulary of 261" in message
    assert "none at position -999" in message
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--layer", "4"), "layer 4 is out of range: tiny has layers 0 to 3"),
        (("--layer", "1", "--layers", "0,2"), "layer 1 is not among --layers"),
        (("--layers", "3"), "none of the layers kept is among the first 3"),
        (("--refusal-tokens", "-1"), "refusal token -1 is not in the vocabulary"),
        (("--token-position", "0"), "all prompts are the same up to token 0"),
    ],
)
@pytest.mark.parametrize("adapter", [False, True])
def test_each_of_them(
    command: Command,
    unloaded: None,
    tiny_folder: Path,
    tmp_path: Path,
    flags: tuple[str, ...],
    words: str,
    adapter: bool,
) -> None:
    folder = tmp_path / "tiny"
    folder.mkdir()
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({"base_model_name_or_path": str(tiny_folder)}))
    model = folder if adapter else tiny_folder
    message = command.fails("run", model, *SMALL, *flags, "--out", tmp_path / "runs")
    assert message.startswith(f"somatlas: {words}")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--out", ""), "must name a folder"),
        (("--out", "memory://"), "must name a place behind the protocol"),
        (("--out", "s3:///runs"), "must name a place behind the protocol"),
        (("--layers", "0-99999999"), "must be numbers up to 9999"),
        (("--layers", "\N{SUPERSCRIPT TWO}"), "must be like 8-24"),
        (("--device", "meta"), "device 'meta' is not there"),
    ],
)
def test_values_that_are_none(
    command: Command, unloaded: None, tiny_folder: Path, flags: tuple[str, str], words: str
) -> None:
    assert words in command.fails("run", tiny_folder, *flags)


def test_a_sweep_over_layers_tries_each(
    command: Command, unloaded: None, tiny_folder: Path, tmp_path: Path
) -> None:
    flags = ("--over", "layer=2-5", "--over", "seed=0,1", "--out", tmp_path)
    message = command.fails("sweep", tiny_folder, *SMALL, *flags)
    assert "2 things are wrong: (1) layer 4 is out of range" in message
