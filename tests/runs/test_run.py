"""A whole run through the command, on a tiny model: what it writes, repeats and resumes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import torch

from command import SMALL, SMALL_STAGES, Command, assert_begins_as, contents
from conftest import CHAT_TEMPLATE
from somatlas import Projection
from somatlas.completions import make
from somatlas.completions.completion import read_completions
from somatlas.files import read_json, read_tensors
from somatlas.models.reply import Reply
from somatlas.progress import Advance
from somatlas.runs.dealt_replies import Wanted, dealt_replies
from somatlas.runs.folder import run_at
from somatlas.runs.setting_sources import read_config_file
from somatlas.runs.settings import STAGES, Config
from somatlas.searches import trials

FILES = {
    "ablate.json",
    "atlas.json",
    *(
        f"figures/{name}.{ending}"
        for name in (
            "cosines",
            "cosines-map",
            "grid",
            "knobs",
            "layers",
            "map",
            "plane",
            "scaling",
            "stability",
            "steps",
        )
        for ending in ("csv", "pdf", "svg")
    ),
    "completions/base.jsonl",
    "completions/md.jsonl",
    "completions/sd.jsonl",
    "config.toml",
    "directions.safetensors",
    "evaluation.json",
    "inputs.json",
    "judge.json",
    "cost.json",
    "cost.txt",
    "layers.json",
    "map.json",
    "map.png",
    "map.safetensors",
    "report.html",
    "representations/index.json",
    "representations/negative-00000.safetensors",
    "representations/positive-00000.safetensors",
    "search.json",
    "single_direction.safetensors",
    "stages.json",
    "study.db",
    "table.txt",
    "verdicts.jsonl",
}


# Files that hold times or paths, compared without them or not at all.
@pytest.mark.figures
def test_a_run_writes_its_files_and_prints_the_table_and_the_folder(
    command: Command, tiny_folder: Path, tmp_path: Path
) -> None:
    code, out, err = command("run", tiny_folder, *SMALL, "--out", tmp_path)
    assert code == 0, err
    folder = tmp_path / "tiny" / "default"
    assert {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} == FILES
    assert (folder / "table.txt").read_text() in out
    early, late = f"report so far: {folder}", f"report: {folder}"  # before the atlas and behind it
    assert 0 < out.index(early) < out.index(late)
    assert out.rstrip().endswith(f"run folder: {folder}")
    for stage in ("represent", "layers", "search", "ablate", "judge"):
        assert f"{stage}: " in err  # piped: plain lines of progress
    assert "\x1b" not in err


def test_evaluation_has_the_agreed_shape(whole: Path) -> None:
    evaluation = json.loads((whole / "evaluation.json").read_text())
    assert evaluation["seed"] == 0
    assert len(evaluation["ranks"]) == 2
    assert set(evaluation["seconds"]) == set(STAGES) - {"cost", "atlas"}
    for condition in ("base", "sd", "md"):
        rates = evaluation["test"][condition]
        shares = ("refusal", "asr", "babble", "off_topic")
        for name in (*shares, "harmless_refusal", "borderline_refusal"):
            assert set(rates[name]) == {"rate", "low", "high", "n"}
            assert rates[name]["n"] == 6
        assert sum(rates[name]["rate"] for name in shares) == pytest.approx(1)
        assert set(rates["counted"]) == {"n", "repetition", "ended"}
        assert rates["counted"]["n"] == round(6 * rates["asr"]["rate"])
    assert evaluation["test"]["base"]["kl"] == 0
    assert evaluation["test"]["sd"]["kl"] > 0


def test_test_prompts_are_those_of_the_test_split(whole: Path) -> None:
    from somatlas.prompts import bundled_prompts

    texts = {c.prompt for c in read_completions(whole / "completions" / "md.jsonl")}
    bundled = bundled_prompts()
    test = {
        p.text for s in (bundled.positive, bundled.negative, bundled.borderline) for p in s["test"]
    }
    assert len(texts) == 18
    assert texts <= test


@pytest.mark.figures
def test_the_same_seed_gives_the_same_files_and_another_seed_others(
    command: Command, tiny_folder: Path, tmp_path: Path, whole: Path
) -> None:
    for name, seed in (("same", "0"), ("other", "1")):
        options = ("--name", name, "--seed", seed, "--out", whole.parents[1])
        assert command("run", tiny_folder, *SMALL, *options).code == 0
    same, other = (contents(whole.parent / name, figures=True) for name in ("same", "other"))
    assert contents(whole, figures=True) == same
    assert any(name.endswith(".svg") for name in same)
    assert contents(whole)["directions.safetensors"] != other["directions.safetensors"]


def test_the_stages_one_by_one_give_what_run_gives(
    command: Command, tiny_folder: Path, whole: Path
) -> None:
    place = ("--out", whole.parents[1], "--name", "steps")
    for stage in STAGES:
        result = command(stage, tiny_folder, *SMALL_STAGES[stage], *place)
        assert result.code == 0, result.err
    assert contents(whole.parent / "steps") == contents(whole)


def test_a_stage_without_the_one_before_says_what_to_run(
    command: Command, tiny_folder: Path, tmp_path: Path
) -> None:
    message = command.fails("search", tiny_folder, "--out", tmp_path)
    assert "no finished stage 'map'" in message
    assert f"`somatlas map {tiny_folder} --name default --out {tmp_path}`" in message


def test_a_finished_run_is_not_done_again(command: Command, tiny_folder: Path, whole: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in whole.rglob("*") if p.suffix == ".safetensors"}
    result = command("run", tiny_folder, "--out", whole.parents[1])
    assert result.code == 0
    assert result.err.count("done before") == len(STAGES)
    assert before == {p: p.stat().st_mtime_ns for p in before}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--seed", "5"), "seed = 0, not 5"),
        (("--grid", "2x2"), "grid = [2, 3], not [2, 2]"),
        (("--trials", "3"), "trials = 4, not 3"),
        (("--test-tokens", "9"), "test_tokens = 6, not 9"),
    ],
)
def test_a_folder_of_another_configuration_is_refused(
    command: Command, tiny_folder: Path, whole: Path, flags: tuple[str, str], message: str
) -> None:
    before = contents(whole)
    assert message in command.fails("run", tiny_folder, "--out", whole.parents[1], *flags)
    assert contents(whole) == before


def test_a_finished_search_is_extended_to_what_a_longer_one_finds(
    command: Command, tiny_folder: Path, whole: Path
) -> None:
    flags = (*SMALL, "--out", whole.parents[1])
    longer = (tiny_folder, *flags, "--trials", "9")
    assert command.until("judge", *longer, "--name", "long").code == 0
    assert command.until("judge", *longer).code == 0
    assert_begins_as(whole.parent / "long", whole)
    assert len(json.loads((whole / "search.json").read_text())["trials"]) == 9


def test_changed_prompts_are_another_configuration(
    command: Command, tiny_folder: Path, tmp_path: Path
) -> None:
    files = [tmp_path / "p.txt", tmp_path / "n.txt"]
    for path in files:
        path.write_text("\n".join(f"{path.stem} {i}" for i in range(60)))
    given = ("--positive", files[0], "--negative", files[1], "--out", tmp_path)
    assert command("represent", tiny_folder, *given).code == 0
    files[0].write_text("\n".join(f"another {i}" for i in range(60)))
    assert "prompts_sha256" in command.fails("layers", tiny_folder, *given)


def test_a_changed_file_is_another_configuration(
    command: Command, tiny_folder: Path, tmp_path: Path
) -> None:
    template = tmp_path / "chat.jinja"
    template.write_text(CHAT_TEMPLATE)
    given = ("--chat-template", template, "--out", tmp_path / "runs")
    assert command("represent", tiny_folder, *SMALL_STAGES["represent"], *given).code == 0
    template.write_text(CHAT_TEMPLATE.replace("<user>", "<user> "))
    assert "chat_template_sha256 = " in command.fails("layers", tiny_folder, *given)


def test_a_text_that_changed_is_measured_again_and_nothing_else(
    command: Command, tiny_folder: Path, whole: Path, tmp_path: Path
) -> None:
    text = tmp_path / "text.txt"
    given = ("--perplexity", text, "--out", whole.parents[1])
    found = []
    for content in ("One text. " * 20, "Quite another. " * 20):
        text.write_text(content)
        result = command("run", tiny_folder, *given)
        assert result.code == 0, result.err
        assert result.err.count("done before") == len(STAGES) - 1
        found.append([m for m in measures(whole) if m["name"] == "text loss"])
    assert len(found[0]) == len(found[1]) == 1
    assert found[0] != found[1]


def test_what_judge_models_read_may_change_while_they_judge_no_trial() -> None:
    for judge, free in (("keyword", True), ("endpoint:m", True), ("classifier:m", False)):
        config = Config(judge=judge, endpoint_url="http://localhost/v1")
        assert ("judge_labels" in config.redone) == free
        assert "judge_labels" in config.settings_until("search")


def test_a_judge_that_cannot_be_loaded_leaves_the_run_as_it_was(
    command: Command, tiny_folder: Path, whole: Path, tmp_path: Path
) -> None:
    before = (whole / "stages.json").read_bytes()
    place = ("--out", whole.parents[1])
    judge = f"classifier:{tmp_path / 'none'}"
    command.fails("judge", tiny_folder, *place, "--more-judges", judge)
    assert (whole / "stages.json").read_bytes() == before
    assert command("compare", whole).code == 0


def test_a_refused_command_of_several_workers_leaves_the_settings_as_they_were(
    command: Command, tiny_folder: Path, whole: Path
) -> None:
    before = (whole / "config.toml").read_bytes()
    flags = ("--seed", "5", "--workers", "2", "--out", whole.parents[1])
    assert "was made with seed = 0" in command.fails("run", tiny_folder, *flags)
    assert (whole / "config.toml").read_bytes() == before


def test_settings_are_valid_together_with_those_of_the_folder(
    command: Command, tiny_folder: Path, whole: Path
) -> None:
    """With the defaults, 18 directions cannot be taken from 16 candidates; the folder has more."""
    settings = read_config_file(whole / "config.toml") | {"candidates": 30, "grid": [6, 6]}
    (whole / "config.toml").write_text(tomli_w.dumps(settings))
    message = command.fails("search", tiny_folder, "--k", "18", "--out", whole.parents[1])
    assert "was made with" in message


def test_a_stage_that_was_interrupted_has_no_seconds_in_the_table(whole: Path) -> None:
    stages = read_json(whole / "stages.json")
    del stages["search"]["seconds"]
    (whole / "stages.json").write_text(json.dumps(stages))
    assert "seconds: represent" in (whole / "table.txt").read_text()


def test_a_bound_on_drift_that_no_trial_keeps_is_said(
    command: Command, tiny_folder: Path, tmp_path: Path
) -> None:
    flags = (*SMALL, "--objective", "asr,kl", "--out", tmp_path)
    result = command.until("judge", tiny_folder, *flags, "--max-kl", "1e-12", "--name", "none")
    assert result.code == 0, result.err
    assert "no trial kept KL at or below 1e-12: the gentlest was taken" in result.out
    found = read_json(tmp_path / "tiny" / "none" / "search.json")
    assert found["max_kl"] == {"limit": 1e-12, "kept": 0}
    assert found["val"]["kl"] == min(trial["kl"] for trial in found["trials"])
    result = command.until("judge", tiny_folder, *flags, "--max-kl", "1e9", "--name", "all")
    assert "no trial kept" not in result.out
    found = read_json(tmp_path / "tiny" / "all" / "search.json")
    assert found["max_kl"]["kept"] == len(found["trials"])
    # The front: nothing beats any of it in both, and each point has its figures.
    for point in found["front"]:
        assert not any(
            trial["asr"] >= point["asr"]
            and trial["kl"] <= point["kl"]
            and (trial["asr"], trial["kl"]) != (point["asr"], point["kl"])
            for trial in found["trials"]
        )


def measures(folder: Path) -> list[dict[str, Any]]:
    """What the cost stage measured."""
    found: list[dict[str, Any]] = json.loads((folder / "cost.json").read_text())["measures"]
    return found


@pytest.mark.parametrize("call", [1, 4, 6, 8])
def test_an_interrupted_run_goes_on_to_the_same_result(
    command: Command,
    tiny_folder: Path,
    whole: Path,
    call: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ctrl-C inside the n-th generation: in calibration, in a trial, between test conditions."""
    generate, calls = make.generate, 0

    def interrupting(*args: Any, **kwargs: Any) -> list[str]:
        nonlocal calls
        calls += 1
        if calls == call:
            raise KeyboardInterrupt
        return generate(*args, **kwargs)

    place = ("--out", whole.parents[1], "--name", "cut")
    with monkeypatch.context() as patch:
        patch.setattr(trials, "generate", interrupting)
        patch.setattr(make, "generate", interrupting)
        code, _, err = command.until("judge", tiny_folder, *SMALL, *place)
    assert code == 130
    assert "the same command goes on" in err
    assert not list((whole.parent / "cut").rglob("*.part"))
    assert command.until("judge", tiny_folder, *SMALL, *place).code == 0
    assert_begins_as(whole.parent / "cut", whole)


def test_replies_are_kept_as_batches_end(
    command: Command,
    tiny_folder: Path,
    whole: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Cut after two of the three batches of a condition: what they gave is not made again."""
    from somatlas.completions.kept import KeptReplies

    keep, generate, batches, made = KeptReplies.keep, make.generate, 0, []

    def interrupting(self: KeptReplies, *args: Any) -> None:
        nonlocal batches
        batches += 1
        keep(self, *args)
        if batches == 2:
            raise KeyboardInterrupt

    def counting(*args: Any, **kwargs: Any) -> list[str]:
        made.append(len(args[1]))
        return generate(*args, **kwargs)

    flags = (tiny_folder, *SMALL, "--temperature", "1", "--out", whole.parents[1])
    with monkeypatch.context() as patch:
        patch.setattr(KeptReplies, "keep", interrupting)
        assert command.until("judge", *flags, "--batch-size", "6", "--name", "cut").code == 130
    (growing,) = (whole.parent / ".replies").glob("*.growing.jsonl")
    assert len(growing.read_text().splitlines()) == 12
    monkeypatch.setattr(make, "generate", counting)
    assert command.until("judge", *flags, "--batch-size", "6", "--name", "cut").code == 0
    assert made == [6] * 7
    assert not list((whole.parent / ".replies").glob("*.growing.jsonl"))
    shutil.rmtree(whole.parent / ".replies")
    assert command.until("judge", *flags, "--batch-size", "6", "--name", "through").code == 0
    assert contents(whole.parent / "cut") == contents(whole.parent / "through")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_process_that_is_told_to_end_ends_as_by_ctrl_c(
    command: Command,
    tiny_folder: Path,
    tmp_path: Path,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    number = getattr(signal, name)
    before = signal.signal(number, signal.SIG_DFL)  # it may be ignored here, as under nohup

    def stop(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), number)
        time.sleep(5)

    monkeypatch.setattr("somatlas.runs.stages.represent_stage.residual_stream", stop)
    result = command("represent", tiny_folder, *SMALL_STAGES["represent"], "--out", tmp_path)
    assert result.code == 130
    assert "the same command goes on" in result.err
    assert signal.signal(number, before) is signal.SIG_DFL


def test_few_prompts_leave_a_gap_on_the_page_and_a_run_that_is_done(
    command: Command, tiny_folder: Path, tmp_path: Path
) -> None:
    files = {}
    for side in ("positive", "negative"):
        files[side] = tmp_path / f"{side}.txt"
        files[side].write_text("\n".join(f"{side} {i}" for i in range(10)))
    given = [str(word) for side, file in files.items() for word in (f"--{side}", file)]
    result = command("run", tiny_folder, *SMALL, *given, "--out", tmp_path / "runs")
    assert result.code == 0, result.err
    folder = tmp_path / "runs" / "tiny" / "default"
    page = (folder / "report.html").read_text()
    assert "Not to be had from these prompts: stability" in page
    assert json.loads((folder / "atlas.json").read_text())["missing"].keys() == {"stability"}


def test_a_narrow_stdout_loses_letters_and_no_run(
    command: Command, tiny_folder: Path, tmp_path: Path
) -> None:
    """A pipe on Windows takes cp1252 alone."""
    (tmp_path / "c.toml").write_text('name = "日本"\n')
    line = [sys.executable, "-m", "somatlas", "represent", str(tiny_folder)]
    flags = [*SMALL_STAGES["represent"], "--config", str(tmp_path / "c.toml")]
    result = subprocess.run(
        [*line, *flags, "--out", str(tmp_path)],
        env={**os.environ, "PYTHONIOENCODING": "cp1252"},
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert b"run folder: " in result.stdout


@pytest.mark.slow
def test_a_process_stopped_by_ctrl_c_is_resumed_by_the_same_command(
    tiny_folder: Path, whole: Path
) -> None:
    """The search's own process; test_storage kills runs at any moment."""
    folder = whole.parent / "stopped"
    shutil.copytree(whole, folder)
    stages = read_json(folder / "stages.json")
    kept = {name: stages[name] for name in ("represent", "layers", "map")}
    (folder / "stages.json").write_text(json.dumps(kept))
    for name in ("study.db", "search.json"):
        (folder / name).unlink()
    place = ["--out", str(whole.parents[1]), "--name", "stopped"]
    line = [sys.executable, "-m", "somatlas", "search", str(tiny_folder), *place]
    process = subprocess.Popen(
        line,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.SIG_DFL
        ),  # a background job has none
    )
    while process.poll() is None and not (folder / "study.db").exists():
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert b"Traceback" not in err
    assert not (folder / "search.json").exists()
    subprocess.run(line, check=True, capture_output=True, timeout=120)
    assert contents(folder) == contents(whole)


def test_directions_and_ids_can_be_given_by_hand(
    command: Command, tiny_folder: Path, whole: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "mine.safetensors"
    shutil.copy(whole / "directions.safetensors", copy)
    place = ("--out", whole.parents[1], "--name", "hand")
    assert command("represent", tiny_folder, "--train-prompts", "24", *place).code == 0
    small_map = ("--grid", "2x3", "--layer", "1")  # a layer by hand needs no layers stage
    assert command("map", tiny_folder, *small_map, *place).code == 0
    hand = ("--directions", copy, "--ids", "2,0", "--test-prompts", "4", "--test-tokens", "4")
    for stage in ("ablate", "judge"):
        result = command(stage, tiny_folder, *hand, *place)
        assert result.code == 0, result.err
    evaluation = json.loads((whole.parent / "hand" / "evaluation.json").read_text())
    assert (evaluation["layer"], evaluation["ranks"]) == (1, [2, 0])


def test_representations_lie_in_shards_of_one_side(whole: Path) -> None:
    for side in ("positive", "negative"):
        path = whole / "representations" / f"{side}-00000.safetensors"
        tensors, metadata = read_tensors(path)
        assert {k: tuple(v.shape) for k, v in tensors.items()} == {"vectors": (24, 4, 32)}
        assert metadata["side"] == side


def test_environment_and_config_file_are_read_in_that_order(
    command: Command, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "c.toml").write_text('grid = "2x2"\nseed = 3\nbatch_size = 5\n')
    monkeypatch.setenv("SOMATLAS_SEED", "4")
    monkeypatch.setenv("SOMATLAS_K", "2")
    given = ("--config", tmp_path / "c.toml", "--train-prompts", "12", "--out", tmp_path)
    result = command("represent", tiny_folder, *given, "--name", "x")
    assert result.code == 0, result.err
    config = (tmp_path / "tiny" / "x" / "config.toml").read_text()
    for line in ("seed = 4", "k = 2", "batch_size = 5", "train_prompts = 12"):
        assert line in config.splitlines()
    assert "HOME" not in config
    assert os.environ["SOMATLAS_K"] == "2"


def test_replies_that_two_conditions_share_are_made_once(
    whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of SD and MD where one direction is all there is."""
    made: list[str] = []

    def said(
        _self: Any, _lm: Any, _edit: Any, prompts: Sequence[str], advance: Advance, **_: Any
    ) -> list[Reply]:
        made.extend(prompts)
        advance(len(prompts))
        return [Reply(prompt.upper(), ended=True) for prompt in prompts]

    monkeypatch.setattr(make.Generator, "make", said)
    run, told = run_at(whole), []
    asked = ["One?", "Two?"]
    edits = [Projection(torch.ones(1, 32)), Projection(torch.ones(1, 32)), None]
    wanted = [Wanted(edit, None, asked) for edit in edits]
    found = dealt_replies(run, wanted, None, told.append)
    assert [[one.answer for one in replies] for replies in found] == [["ONE?", "TWO?"]] * 3
    assert sorted(made) == sorted(asked * 2)
    assert sum(told) == 6
