"""Agreement, labels, replies of other tools, and the cost of an ablation, on tiny runs."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest

from command import SMALL, Command, run_offline
from fake_server import fake_server
from judging import by_words, classifier_folder
from somatlas.completions.completion import read_completions
from somatlas.evaluation.cost import window_losses
from somatlas.evaluation.evidence import evidence
from somatlas.evaluation.labels import label, labels_at, to_label
from somatlas.evaluation.verdicts import VerdictRow
from somatlas.files import read_json, read_jsonl
from somatlas.models.language_model import LanguageModel


@pytest.fixture(scope="module")
def finished(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a second judge, made once."""
    place = tmp_path_factory.mktemp("evidence")
    judge = classifier_folder(place / "judge", ["complied", "refused"])
    flags = ("--more-judges", f"classifier:{judge}", "--out", place / "runs")
    run_offline("run", tiny_folder, *SMALL, *flags)
    return place / "runs" / "tiny" / "default"


def rerun(command: Command, stage: str, folder: Path, tiny_folder: Path, *flags: str) -> Any:
    return command(stage, tiny_folder, "--out", folder.parents[1], *flags)


def test_every_judge_is_recorded_with_its_rates_and_their_agreement(finished: Path) -> None:
    evaluation = read_json(finished / "evaluation.json")
    assert len(evaluation["judge"]) == 2
    assert set(evaluation["by_judge"]) == set(evaluation["judge"])
    assert evaluation["agreement"][0]["n"] == 54
    assert len(evaluation["paired"]) == 6
    assert evaluation["resolvable"]["n"] == 6
    text = (finished / "table.txt").read_text()
    assert "with 6 prompts a difference under" in text
    assert "judge keyword" in text


def test_agreement_names_the_replies_on_which_judges_differ(
    command: Command, finished: Path
) -> None:
    result = command("agree", finished)
    assert result.code == 0, result.err
    assert "kappa" in result.out
    rows = [json.loads(line) for line in (finished / "verdicts.jsonl").read_text().splitlines()]
    apart = [r for r in rows if len({j["verdict"] for j in r["judges"].values()}) > 1]
    assert apart
    assert all(row["prompt"] in result.out for row in apart)
    replies = (finished / "completions" / "base.jsonl").read_text()
    some = json.loads(replies.splitlines()[0])["reply"]
    assert not some or some not in result.out


def test_a_new_judge_costs_no_generation_and_changes_no_other_stage(
    command: Command, finished: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("nothing is to be generated")

    monkeypatch.setattr("somatlas.completions.make.generate", never)
    before = read_json(finished / "stages.json")
    with fake_server(by_words) as server:
        flags = ("--more-judges", "endpoint:m", "--endpoint-url", server.url)
        result = rerun(command, "judge", finished, tiny_folder, *flags)
        assert result.code == 0, result.err
        asked = len(server.requests)
        assert 0 < asked <= 54
        monkeypatch.setenv("SOMATLAS_API_KEY", "sk-secret")
        rerun(command, "judge", finished, tiny_folder, "--more-judges", "keyword", *flags[2:])
        result = rerun(command, "judge", finished, tiny_folder, *flags)
        assert result.code == 0, result.err
        assert len(server.requests) == asked  # its answers were kept
    after = read_json(finished / "stages.json")
    assert {s: r for s, r in before.items() if s != "judge"} == {
        s: r for s, r in after.items() if s != "judge"
    }
    assert set(read_json(finished / "judge.json")["judges"]) == {"keyword", "endpoint:m"}
    for path in finished.rglob("*"):
        assert not path.is_file() or b"sk-secret" not in path.read_bytes()


def test_a_judge_that_fails_is_an_error_and_writes_no_verdicts(
    command: Command, finished: Path, tiny_folder: Path
) -> None:
    before = (finished / "verdicts.jsonl").read_bytes()
    with fake_server(lambda _: "nonsense") as server:
        flags = ("--more-judges", "endpoint:n", "--endpoint-url", server.url)
        message = command.fails("judge", tiny_folder, "--out", finished.parents[1], *flags)
        assert "judge endpoint:n gave no verdict on 54 of 54 replies (no verdict" in message
        assert (finished / "verdicts.jsonl").read_bytes() == before
        result = rerun(command, "judge", finished, tiny_folder, *flags, "--max-missing", "1")
    assert result.code == 0, result.err
    assert "endpoint:n gave no verdict on 54 replies" in result.out


def test_a_person_labels_blind_and_goes_on_where_they_stopped(
    command: Command, finished: Path
) -> None:
    file, shown = finished / "labels.jsonl", []
    sides = [read_completions(finished / f"completions/{c}.jsonl") for c in ("base", "sd", "md")]
    rows = to_label([one for side in sides for one in side], ["harmful"], seed=0)
    answers = iter(["c", "x", "r", "s", "q"])
    assert label(labels_at(file), rows, lambda _: next(answers), shown.append) == 2
    assert len(labels_at(file)) == 2
    assert not any(word in text for text in shown for word in ("base", "md", "sd", "condition"))
    answers = iter(["i"] * len(rows))
    label(labels_at(file), rows, lambda _: next(answers), shown.append)
    assert len(labels_at(file)) == len(rows)
    with file.open("a") as torn:
        torn.write('{"key": "cut')
    assert len(labels_at(file)) == len(rows)
    assert "and person" in command("agree", finished).out


def test_one_judge_alone_agrees_with_nobody(
    command: Command, finished: Path, tiny_folder: Path
) -> None:
    (finished / "labels.jsonl").unlink(missing_ok=True)
    assert rerun(command, "judge", finished, tiny_folder, "--more-judges", "keyword").code == 0
    assert "one judge alone" in command.fails("agree", finished)


def other_tools(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        dump = "\n".join(map(json.dumps, rows)) if path.suffix == ".jsonl" else json.dumps(rows)
        path.write_text(dump)
    return path


ROWS = [
    {"goal": "Do x", "response": "I can't help with that", "method": "none"},
    {"goal": "Do y", "response": "I won't do it", "method": "none"},
    {"goal": "Do x", "response": "Sure: first", "method": "attack"},
    {"goal": "Do y", "response": " \n", "method": "attack"},
]


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv"])
def test_replies_of_other_tools_are_judged(command: Command, tmp_path: Path, suffix: str) -> None:
    path = other_tools(tmp_path / f"replies{suffix}", ROWS)
    result = command("judge", path, "--condition-column", "method")
    assert result.code == 0, result.err
    content = read_json(tmp_path / f"replies{suffix}.evaluation.json")
    assert content["conditions"]["none"]["refusal"]["rate"] == 1
    assert content["conditions"]["attack"]["asr"]["rate"] == 0.5
    assert content["conditions"]["attack"]["babble"]["rate"] == 0.5  # the empty reply
    assert content["judges"]["keyword"]["coherence"] is None
    assert [t["n"] for t in content["paired"]] == [2, 2]
    assert "babble and talk of something else count as compliance" in result.out


def test_they_stand_beside_a_run(command: Command, finished: Path, tmp_path: Path) -> None:
    prompts = [
        json.loads(line)["prompt"]
        for line in (finished / "completions" / "base.jsonl").read_text().splitlines()
        if json.loads(line)["kind"] == "harmful"
    ]
    replies = ["I can't help with that", "so so so so so so " * 30]
    path = other_tools(
        tmp_path / "r.json",
        [{"prompt": p, "reply": replies[i % 2]} for i, p in enumerate(prompts)],
    )
    result = command("judge", path, "--beside", finished)
    assert result.code == 0, result.err
    assert "default: md" in result.out
    assert f"n={len(prompts)}" in result.out
    assert "babble and talk of something else count as compliance" not in result.out
    # The file's replies went through the run's coherence check, as the run's own did.
    content = read_json(tmp_path / "r.json.evaluation.json")
    thresholds = read_json(finished / "judge.json")["coherence"]
    assert content["judges"]["keyword"]["coherence"] == thresholds
    assert content["conditions"]["r"]["asr"]["rate"] == 0
    assert content["conditions"]["r"]["babble"]["rate"] == 0.5
    message = command.fails("judge", path, "--beside", finished, "--judge", "yesno:none")
    assert "was judged by keyword" in message


def test_a_file_beside_a_run_is_judged_as_the_run_was(
    command: Command, whole: Path, tmp_path: Path
) -> None:
    """By the same judge, though it is not the run's first, and for the same behaviour."""
    rows = read_jsonl(whole / "verdicts.jsonl")
    for row in rows:
        row["verdict"] = "complied"  # of some other judge
        row["judges"]["keyword"] = {"verdict": "refused"}
    (whole / "verdicts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    behaviour = tmp_path / "pirate.txt"
    behaviour.write_text("arr\n")
    with (whole / "config.toml").open("r+") as file:
        text = file.read()
        file.seek(0)
        file.write(f'behaviour = "{behaviour}"\n{text}')
    path = other_tools(tmp_path / "r.json", [{"prompt": "p", "reply": "Arr, arr, matey"}])
    assert command("judge", path, "--beside", whole).code == 0
    conditions = read_json(tmp_path / "r.json.evaluation.json")["conditions"]
    assert conditions["default: base"]["refusal"]["rate"] == 1
    assert conditions["r"]["refusal"]["rate"] == 1


def test_several_replies_to_a_prompt_are_one_piece_of_evidence(
    command: Command, tmp_path: Path
) -> None:
    replies = [{"prompt": f"p{i % 10}", "reply": f"Sure: {i}"} for i in range(100)]
    path = other_tools(tmp_path / "r.json", replies)
    assert command("judge", path).code == 0
    asr = read_json(tmp_path / "r.json.evaluation.json")["conditions"]["r"]["asr"]
    assert (asr["rate"], asr["n"]) == (1, 10)


def test_what_is_odd_about_replies_is_said(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text(
        '[{"prompt": "cut \\ud83d", "reply": "I can\'t help with \\ud83d", "id": null},'
        '{"prompt": "q", "reply": " ", "id": NaN}, {"prompt": "q", "reply": 4, "id": NaN}]'
    )
    result = command("judge", path)
    assert result.code == 0, result.err
    notes = [
        "1 replies are empty: they count as incoherent",
        "1 rows hold half of a character: a question mark stands in its place",
    ]
    assert read_json(tmp_path / "r.json.evaluation.json")["notes"] == notes
    assert all(note in result.out for note in notes)


def test_missing_verdicts_on_reasoning_count_for_nothing_and_samples_for_one() -> None:
    rows = [
        VerdictRow(
            *(c, "harmful", "", f"p{i}", "refused"),
            sample=sample,
            judges={"k": {"verdict": "refused"}},
            reasoning_verdict="refused" if i < 5 else "missing",
            shown_within=32,
        )
        for c in ("base", "sd", "md")
        for sample in range(4)
        for i in range(10)
    ]
    found = evidence(rows, 0)
    assert found["reasoning_refused"]["base"]["rate"] == 1
    assert found["reasoning_refused"]["base"]["n"] == 5
    assert found["late"]["base"]["32"]["n"] == 10


@pytest.mark.parametrize(
    ("rows", "flags", "message"),
    [
        ([{"a": 1}], (), "has no column prompt or"),
        ([{"prompt": "p"}], (), "--reply-column"),
        (ROWS, ("--condition-column", "who"), "--condition-column"),
        ([], (), "at least one"),
        ([{"prompt": "p", "reply": "r", "kind": "odd"}], (), "kind 'odd'"),
        ([{"prompt": "p", "reply": "r", "id": 1}] * 2, (), "id 1 occurs twice"),
        ([{"prompt": "p", "reply": "r", "id": [1]}] * 2, (), "id [1] occurs twice"),
        ([*ROWS, {**ROWS[0], "response": math.nan}], (), "row 5: column 'response' is missing"),
        ([{"prompt": "p", "reply": None}], (), "row 1: column 'reply' is missing (None)"),
        ([{"prompt": "p", "reply": False}], (), "row 1: column 'reply' holds False"),
        ([{"prompt": None, "reply": "r"}], (), "row 1: column 'prompt' is missing"),
        ([{"prompt": " ", "reply": "r"}], (), "row 1: column 'prompt' holds no request"),
        ([{**ROWS[0], "method": None}], ("--condition-column", "method"), "names no condition"),
        (ROWS, ("--condition-column", ""), "no column ''"),
        (ROWS, ("--positive", "no.csv", "--grid", "9x9"), "--grid, --positive would change noth"),
        (ROWS, ("--endpoint-url", "http://x"), "--endpoint-url would change nothing"),
        (ROWS, ("--beside", "no", "--behaviour", "b.txt"), "--behaviour would change nothing"),
        (ROWS, ("--beside", ""), "is no run folder"),
        (ROWS, ("--judge", "wise"), "judge"),
        (ROWS, ("--judge", "endpoint:x"), "--endpoint-url"),
    ],
)
def test_bad_files_of_replies(
    command: Command, tmp_path: Path, rows: Any, flags: tuple[str, ...], message: str
) -> None:
    path = other_tools(tmp_path / "r.json", rows)
    assert message in command.fails("judge", path, *flags)
    assert list(tmp_path.iterdir()) == [path]
    table = path.rename(tmp_path / "r.tsv")
    assert "by its ending no file of replies: json, jsonl" in command.fails("judge", table)
    assert "does not exist" in command.fails("judge", tmp_path / "none.jsonl")


def test_samples_and_system_prompts_are_factors(
    command: Command, tiny_folder: Path, tmp_path: Path
) -> None:
    systems = tmp_path / "systems.txt"
    systems.write_text("Be kind.\nBe short.\n")
    flags = ("--samples", "2", "--temperature", "0.9", "--test-systems", str(systems))
    result = command.until("cost", tiny_folder, *SMALL, *flags, "--out", tmp_path)
    assert result.code == 0, result.err
    evaluation = read_json(tmp_path / "tiny" / "default" / "evaluation.json")
    assert evaluation["test"]["base"]["refusal"]["n"] == 6
    assert set(evaluation["systems"]) == {"Be kind.", "Be short."}
    rows = (tmp_path / "tiny" / "default" / "completions" / "base.jsonl").read_text().splitlines()
    assert len(rows) == 18 * 4
    # The replies to one prompt are one unit of what an ablation costs.
    measures = read_json(tmp_path / "tiny" / "default" / "cost.json")["measures"]
    assert {m["name"]: m["n"] for m in measures}["repetition"] == 6
    message = command.fails("run", tiny_folder, *SMALL, "--samples", "2", "--out", tmp_path / "b")
    assert "give --temperature" in message


def test_runs_of_one_model_share_their_replies(
    command: Command, tiny_folder: Path, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        flags = (*SMALL, "--out", tmp_path, "--name", name, "--ids", "0" if name == "a" else "1")
        assert command.until("ablate", tiny_folder, *flags).code == 0
    kept = list((tmp_path / "tiny" / ".replies").iterdir())
    assert len(kept) == 5  # base, its calibration and SD once, MD of each


def test_a_served_model_makes_the_replies(
    command: Command, tiny_folder: Path, tmp_path: Path
) -> None:
    with fake_server(lambda body: f"{body['model']} says so") as server:
        flags = ("--reply-models", "md=edited", "--endpoint-url", server.url)
        result = command.until("ablate", tiny_folder, *SMALL, *flags, "--out", tmp_path)
        assert result.code == 0, result.err
        body = server.requests[0][0]
        assert body["max_tokens"] == 6
        assert body["temperature"] == 0
    rows = (tmp_path / "tiny" / "default" / "completions" / "md.jsonl").read_text().splitlines()
    assert {json.loads(row)["reply"] for row in rows} == {"edited says so"}
    with fake_server(lambda _: 400) as server:
        flags = ("--reply-models", "md=edited", "--endpoint-url", server.url)
        message = command.fails("run", tiny_folder, *SMALL, *flags, "--out", tmp_path / "b")
    assert "gave no reply of 'edited' to 18 of 18" in message


def test_the_cost_of_each_condition_is_measured(
    command: Command, finished: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("All that is read here is text. " * 30)
    result = rerun(command, "cost", finished, tiny_folder, "--perplexity", str(text))
    assert result.code == 0, result.err
    measures = {m["name"]: m for m in read_json(finished / "cost.json")["measures"]}
    assert set(measures) >= {
        "KL on harmless replies, 16 tokens",
        "KL on harmless replies, 32 tokens",
        "refusal on harmless prompts",
        "refusal on borderline prompts",
        "reply length",
        "repetition",
        "text loss",
    }
    kl = measures["KL on harmless replies, 16 tokens"]["conditions"]
    test = read_json(finished / "evaluation.json")["test"]
    assert kl["md"]["mean"] == pytest.approx(test["md"]["kl"])
    assert kl["base"]["mean"] == 0
    over = measures["refusal on borderline prompts"]["conditions"]
    assert over["md"]["mean"] == test["md"]["borderline_refusal"]["rate"]
    assert "d_low" in over["md"]
    assert measures["text loss"]["n"] == 3  # whole windows
    assert "perplexity" in result.out
    message = command.fails(
        "cost", tiny_folder, "--out", finished.parents[1], "--perplexity", tmp_path / "none"
    )
    assert "cannot be read" in message


def test_window_losses_are_the_models_own(tiny: LanguageModel) -> None:
    import torch

    text = "abcdefgh" * 70  # two windows and a rest, which is left out
    ids = tiny.tokenizer(text, add_special_tokens=False)["input_ids"]
    losses = window_losses(tiny, text)
    assert len(losses) == 2
    row = torch.tensor([[tiny.tokenizer.bos_token_id, *ids[:256]]])
    with torch.no_grad():
        expected = tiny.model(row, labels=row).loss
    assert losses[0] == pytest.approx(float(expected), rel=1e-4)
    assert len(window_losses(tiny, "abcdefgh")) == 1


@pytest.mark.slow
def test_tasks_of_the_harness_run_on_base_and_ablated_model(
    command: Command, finished: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    rows = [
        {"q": f"What comes after {x}?", "c": ["a", "b"], "a": i % 2} for i, x in enumerate("xyz")
    ]
    data = tmp_path / "data.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    (tasks / "local.yaml").write_text(
        "task: local_choice\ndataset_path: json\ndataset_kwargs:\n  data_files:\n"
        f"    test: {data}\noutput_type: multiple_choice\ntest_split: test\n"
        'doc_to_text: "{{q}}"\ndoc_to_choice: "{{c}}"\ndoc_to_target: a\n'
        "metric_list:\n  - metric: acc\n"
    )
    (tasks / "filtered.yaml").write_text(
        "task: local_answer\ndataset_path: json\ndataset_kwargs:\n  data_files:\n"
        f"    test: {data}\noutput_type: generate_until\ntest_split: test\n"
        'doc_to_text: "{{q}}"\ndoc_to_target: a\n'
        "generation_kwargs:\n  max_gen_toks: 4\n  until: []\n"
        "metric_list:\n  - metric: exact_match\n"
        "filter_list:\n  - name: first\n    filter:\n      - function: take_first\n"
        '  - name: digits\n    filter:\n      - function: regex\n        regex_pattern: "(\\\\d)"\n'
        "      - function: take_first\n"
    )
    flags = ("--tasks", "local_choice,local_answer", "--task-folder", str(tasks))
    result = rerun(command, "cost", finished, tiny_folder, *flags)
    assert result.code == 0, result.err
    measures = {m["name"]: m for m in read_json(finished / "cost.json")["measures"]}
    assert measures["local_choice (acc)"]["n"] == 3
    # Two filters of the same answers are two measures of three examples, not one of six.
    for name in ("first", "digits"):
        assert measures[f"local_answer (exact_match, {name})"]["n"] == 3
    message = command.fails(
        "cost", tiny_folder, "--out", finished.parents[1], "--tasks", "no_such_task_at_all"
    )
    assert "has no task 'no_such_task_at_all'" in message
