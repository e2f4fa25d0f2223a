"""Bad input, through the command: one sentence, exit code 2, nothing half-written."""

from __future__ import annotations

import errno
import json
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForMaskedLM, T5Config, T5ForConditionalGeneration

from command import SMALL, SMALL_STAGES, Command
from conftest import tiny_tokenizer
from somatlas import __version__


def nothing_left(folder: Path) -> bool:
    """No partial file anywhere below."""
    return not [p for p in folder.rglob("*") if p.name.endswith(".part")]


@pytest.fixture
def model(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that a test may damage."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


def test_version_and_help(command: Command) -> None:
    assert command("--version").out.strip() == f"somatlas, version {__version__}"
    assert "represent" in command("--help").out
    assert "--sigma" in command("run", "--help").out


def test_an_unknown_flag_is_refused(command: Command) -> None:
    assert "--nope" in command.fails("run", "--nope")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--grid", "4"), "'grid' cannot be '4'"),
        (("--grid", "0x4"), "'grid'"),
        (("--sigma", "-1"), "'sigma' cannot be '-1': input should be greater than 0"),
        (("--sigma", "nan"), "'sigma'"),
        (("--trials", "many"), "'trials' cannot be 'many'"),
        (("--seed", "-1"), "'seed'"),
        (("--mode", "both"), "'sequential' or 'subspace'"),
        (("--dtype", "int8"), "'dtype'"),
        (("--name", "a/b"), "plain folder name"),
        (("--ids", "1,x"), "'ids'"),
        (("--k", "17"), "k = 17 directions cannot be taken from 16 candidates"),
        (("--k", "5", "--candidates", "4"), "k = 5 directions cannot be taken from 4"),
        (("--k", "5", "--grid", "2x2"), "k = 5 directions cannot be taken from 4"),
        (("--device", "cuda:99"), "device 'cuda:99' is not there"),
        (("--system", "a\udcff"), "argument 'a\\udcff' holds '\\udcff', which is no whole"),
        (("--out", "r\udcff"), "argument 'r\\udcff' holds"),
        (("--positive", ""), "'positive' cannot be '': must not be empty"),
        (("--chat-template", ""), "'chat_template' cannot be ''"),
        (("--ids", ""), "'ids' cannot be ''"),
        (("--group", ""), "'group' cannot be ''"),
    ],
)
def test_bad_settings(
    command: Command, tiny_folder: Path, tmp_path: Path, flags: tuple[str, ...], message: str
) -> None:
    assert message in command.fails("run", tiny_folder, "--out", tmp_path, *flags)


@pytest.mark.parametrize(
    ("name", "value"),
    [("trials", "true"), ("sigma", "false"), ("grid", "[true, 4]"), ("layer", "true")],
)
def test_a_number_is_not_true_or_false(
    command: Command, tmp_path: Path, name: str, value: str
) -> None:
    path = tmp_path / "c.toml"
    path.write_text(f"{name} = {value}\n")
    said = command.fails("run", "--config", path)
    assert f"setting {name!r} cannot be" in said
    assert "must be a number where" in said


def test_a_mistyped_variable_is_named(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOMATLAS_CACHE", "elsewhere")  # no setting, and known
    monkeypatch.setenv("SOMATLAS_TRAILS", "512")
    for line in (("run",), ("audit",), ("sweep", "--over", "k=1-2"), ("doctor",), ("report",)):
        said = command.fails(*line)
        assert "no setting for the variable SOMATLAS_TRAILS" in said
        assert "did you mean SOMATLAS_TRIALS?" in said


def test_a_bad_config_file(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    assert "does not exist" in command.fails("run", "--config", path)
    path.write_text("grid = ")
    assert "cannot be read" in command.fails("run", "--config", path)
    path.write_text("grid = " + "[" * 10_000)
    assert "nested too deep" in command.fails("run", "--config", path)
    path.write_text("gird = '4x4'")
    assert "no setting 'gird'" in command.fails("run", "--config", path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no/such-model", "the hub cannot be reached"),
        ("./nowhere", "cannot be loaded"),
        ("missing.gguf", "no model file missing.gguf"),
    ],
)
def test_an_unknown_model(command: Command, tmp_path: Path, name: str, message: str) -> None:
    assert message in command.fails("run", name, "--out", tmp_path)


def test_a_file_that_is_no_gguf(command: Command, tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"not a model")
    message = command.fails("run", tmp_path / "bad.gguf", "--out", tmp_path)
    assert "bad.gguf' cannot be loaded" in message


def test_an_empty_model_folder(command: Command, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    message = command.fails("run", tmp_path / "empty", "--out", tmp_path)
    assert "cannot be loaded" in message


def test_a_model_without_a_chat_template(command: Command, model: Path, tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None
    (model / "chat_template.jinja").unlink(missing_ok=True)
    tokenizer.save_pretrained(model)
    message = command.fails("run", model, "--out", tmp_path)
    assert "has no chat template" in message


def test_models_that_are_no_decoders(command: Command, tmp_path: Path) -> None:
    t5 = T5ForConditionalGeneration(
        T5Config(vocab_size=261, d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
    )
    bert = BertForMaskedLM(
        BertConfig(
            vocab_size=261,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
        )
    )
    for name, subject in (("t5", t5), ("bert", bert)):
        subject.save_pretrained(tmp_path / name)
        tiny_tokenizer().save_pretrained(tmp_path / name)
        command.fails("run", tmp_path / name, "--out", tmp_path)


def test_truncated_weights(command: Command, model: Path, tmp_path: Path) -> None:
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert "damaged" in command.fails("run", model, "--out", tmp_path)


def test_a_model_with_nan_weights(command: Command, model: Path, tmp_path: Path) -> None:
    weights = load_file(model / "model.safetensors")
    weights["model.layers.2.mlp.down_proj.weight"][0, 0] = torch.nan
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    assert "block 2's output holds NaN" in command.fails("run", model, "--out", tmp_path)


def test_prompt_files(command: Command, tiny_folder: Path, tmp_path: Path) -> None:
    good, empty, twin = (tmp_path / f"{name}.txt" for name in ("good", "empty", "twin"))
    good.write_text("\n".join(f"prompt {i}" for i in range(60)))
    twin.write_text(good.read_text())
    empty.write_text("")
    table = tmp_path / "table.csv"
    table.write_text("ask\na\nb\n")

    def message(positive: Path, *more: str | Path) -> str:
        start = ("run", tiny_folder, "--out", tmp_path / "runs", "--positive", positive)
        return command.fails(*start, *more)

    assert "--positive is given without --negative" in message(good)
    assert "does not exist" in message(tmp_path / "none.txt", "--negative", good)
    assert "holds no prompts" in message(empty, "--negative", good)
    assert "stand in both" in message(good, "--negative", twin)
    assert "no column 'x'" in message(table, "--negative", good, "--column", "x")
    assert not (tmp_path / "runs").exists()


def test_a_grid_larger_than_the_prompts(
    command: Command, tiny_folder: Path, tmp_path: Path
) -> None:
    flags = ("--grid", "5x5", "--train-prompts", "24")
    message = command.fails("run", tiny_folder, *SMALL, *flags, "--out", tmp_path)
    assert "25 neurons is larger than the 24 train prompts" in message


def test_who_makes_no_map_is_asked_for_no_grid(
    command: Command, tiny_folder: Path, tmp_path: Path
) -> None:
    files = {}
    for side in ("positive", "negative"):
        files[side] = tmp_path / f"{side}.txt"
        files[side].write_text("\n".join(f"{side} {i}" for i in range(15)))
    sides = [word for side, file in files.items() for word in (f"--{side}", file)]
    result = command("doctor", tiny_folder, *sides)
    assert result.code == 0, result.err


def test_a_layer_out_of_range(command: Command, tiny_folder: Path, tmp_path: Path) -> None:
    message = command.fails("run", tiny_folder, *SMALL, "--layer", "4", "--out", tmp_path)
    assert "layer 4 is out of range: tiny has layers 0 to 3" in message


def test_a_model_that_does_not_refuse(command: Command, model: Path, tmp_path: Path) -> None:
    """One that gives every token the same probability whatever it is asked."""
    weights = load_file(model / "model.safetensors")
    weights["model.norm.weight"].zero_()
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    flags = [f for f in SMALL if f not in ("--refusal-tokens", "10,20")]
    message = command.fails("run", model, *flags, "--out", tmp_path)
    assert "--refusal-tokens" in message


def test_refusal_tokens_outside_the_vocabulary(
    command: Command, tiny_folder: Path, tmp_path: Path
) -> None:
    flags = ("--refusal-tokens", "999")
    message = command.fails("run", tiny_folder, *SMALL, *flags, "--out", tmp_path)
    assert "token 999 is not in the vocabulary of 261" in message


@pytest.fixture
def mapped(command: Command, tiny_folder: Path, tmp_path: Path) -> tuple[str | Path, ...]:
    """A run with its first three stages done; returns what names it."""
    place = (tiny_folder, "--out", tmp_path / "runs")
    for stage in ("represent", "layers", "map"):
        assert command(stage, *place, *SMALL_STAGES[stage]).code == 0
    return place


def test_directions_of_another_model(
    command: Command,
    mapped: tuple[str | Path, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from somatlas import DirectionSet

    monkeypatch.setattr("somatlas.runs.folder.load_model", lambda *_, **__: pytest.fail("loaded"))
    path = tmp_path / "other.safetensors"
    neurons, hits = torch.tensor([0, 1]), torch.tensor([5, 3])
    DirectionSet(torch.ones(2, 17), neurons, hits).save(path, {})
    message = command.fails("ablate", *mapped, "--directions", path, "--ids", "0")
    assert "have 17 values, the vectors of" in message


def test_ids_that_are_no_ranks(command: Command, mapped: tuple[str | Path, ...]) -> None:
    assert "there is no direction 9" in command.fails("ablate", *mapped, "--ids", "0,9")
    assert "name one twice" in command.fails("ablate", *mapped, "--ids", "1,1")


def test_files_that_are_no_directions(
    command: Command, mapped: tuple[str | Path, ...], tmp_path: Path
) -> None:
    run = tmp_path / "runs" / "tiny" / "default"
    flags = ("--ids", "0", "--directions")
    message = command.fails("ablate", *mapped, *flags, run / "map.safetensors")
    assert "not a file of directions" in message
    message = command.fails("ablate", *mapped, *flags, tmp_path / "none.safetensors")
    assert "does not exist" in message


@pytest.mark.parametrize("name", ["map", "representations/positive-00000", "directions"])
def test_a_truncated_file_of_the_run(
    command: Command, mapped: tuple[str | Path, ...], tmp_path: Path, name: str
) -> None:
    path = tmp_path / "runs" / "tiny" / "default" / f"{name}.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    if "/" in name:  # representations are read by the map alone, which is done: make it again
        stages = path.parents[1] / "stages.json"
        done = json.loads(stages.read_text())
        del done["map"]
        stages.write_text(json.dumps(done))
        message = command.fails("map", *mapped)
    else:
        message = command.fails("search", *mapped)
    assert f"{name}.safetensors is not a whole safetensors file" in message


def test_infinite_representations(
    command: Command, mapped: tuple[str | Path, ...], tmp_path: Path
) -> None:
    from somatlas.files import read_tensors, write_tensors

    run = tmp_path / "runs" / "tiny" / "default"
    shard = run / "representations" / "positive-00000.safetensors"
    tensors, metadata = read_tensors(shard)
    tensors["vectors"][3, :, 0] = torch.inf
    write_tensors(shard, tensors, metadata)
    done = json.loads((run / "stages.json").read_text())
    del done["map"]
    (run / "stages.json").write_text(json.dumps(done))
    assert "hold NaN or infinite" in command.fails("map", *mapped)


def test_a_damaged_stages_file(
    command: Command, mapped: tuple[str | Path, ...], tmp_path: Path
) -> None:
    (tmp_path / "runs" / "tiny" / "default" / "stages.json").write_text("{")
    assert "stages.json cannot be read as JSON" in command.fails("search", *mapped)


def test_a_search_begun_with_other_settings(
    command: Command, mapped: tuple[str | Path, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    from somatlas.runs.stages import search_stage as search

    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(search, "run_trials", interrupt)
        assert command("search", *mapped, "--k", "2").code == 130
    assert "k = 2, not 3" in command.fails("search", *mapped, "--k", "3")


def test_a_damaged_study(command: Command, mapped: tuple[str | Path, ...], tmp_path: Path) -> None:
    (tmp_path / "runs" / "tiny" / "default" / "study.db").write_text("not a database, " * 99)
    assert "study.db cannot be read or written" in command.fails("search", *mapped)


def test_a_full_disk(
    command: Command, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write that fails in the middle: one sentence, nothing partial, and the rerun succeeds."""
    write_text = Path.write_text

    def full(path: Path, text: str, *args: Any, **kwargs: Any) -> int:
        if "layers.json" in path.name:
            write_text(path, text[: len(text) // 2])
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return write_text(path, text, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        message = command.fails("run", tiny_folder, *SMALL, "--out", tmp_path)
    assert "No space left on device" in message
    assert nothing_left(tmp_path)
    assert not (tmp_path / "tiny" / "default" / "layers.json").exists()
    assert command.until("map", tiny_folder, *SMALL, "--out", tmp_path).code == 0


def test_a_file_that_the_system_will_not_let_grow(tiny_folder: Path, tmp_path: Path) -> None:
    """The same with a real limit: a shard of 18 KB where files may have 10 KB."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))

    line = [sys.executable, "-m", "somatlas", "represent", str(tiny_folder)]
    flags = ["--train-prompts", "36", "--out", str(tmp_path / "runs")]
    result = subprocess.run(
        [*line, *flags], capture_output=True, text=True, preexec_fn=limit, timeout=120
    )
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    assert "cannot" in result.stderr.splitlines()[-1]
    assert nothing_left(tmp_path)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_an_unwritable_place(command: Command, tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    message = command.fails("run", tiny_folder, *SMALL, "--out", tmp_path / "file")
    assert "cannot read or write" in message
