"""Models that think aloud: the template's switch, what is parted, and what is judged of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from command import SMALL_STAGES, Command
from conftest import CHAT_TEMPLATE, save_tiny, tiny_tokenizer
from somatlas.evaluation.evaluation import CONDITIONS, Completion
from somatlas.files import write_jsonl
from somatlas.models.language_model import LanguageModel
from somatlas.models.load import load_model
from somatlas.models.reasoning import opens_reasoning, part_reasoning
from somatlas.models.reply import Reply
from somatlas.runs.folder import Run, run_at
from somatlas.runs.stages.judge_stage import judge_stage

# As Qwen3's: off writes an empty block before the reply.
SWITCH = (
    "{% if add_generation_prompt and enable_thinking is defined and not enable_thinking %}"
    "<think>\n\n</think>\n\n{% endif %}"
)
OPENED = "{% if add_generation_prompt %}<think>\n{% endif %}"  # as DeepSeek-R1's
REFUSAL = "I can't help with that."


@pytest.mark.parametrize(
    ("reply", "reasoning", "answer"),
    [
        ("No block <b>at all</b>", "", "No block <b>at all</b>"),
        ("<think>Hm.</think>\n\nYes", "Hm.", "Yes"),
        ("<think></think>Yes", "", "Yes"),
        ("<think>Cut sho", "Cut sho", ""),
        ("Opened by the template.\n</think>\nYes", "Opened by the template.", "Yes"),
        ("<think>a</think>One<think>b</think>Two", "a\n\nb", "One\n\nTwo"),
        ("a</think>One<think>b</think>Two", "a\n\nb", "One\n\nTwo"),
        ("<think>a</think>One<think>b, cut sho", "a\n\nb, cut sho", "One"),
        ("First this.<think>Hm.</think>Then that.", "Hm.", "First this.\n\nThen that."),
        ("<think>a<think>b</think>One", "a\n\nb", "One"),
    ],
)
def test_blocks_of_reasoning_are_parted_from_the_answer(
    reply: str, reasoning: str, answer: str
) -> None:
    assert part_reasoning(reply)[:2] == (reasoning, answer)


@pytest.mark.parametrize(
    ("reply", "reasoning", "answer"),
    [
        ("Cut sho", "Cut sho", ""),
        ("Hm.</think>Yes", "Hm.", "Yes"),
        ("<think>Hm.</think>Yes", "Hm.", "Yes"),
        ("Hm.</think>Yes<think>b</think>No", "Hm.\n\nb", "Yes\n\nNo"),
        ("", "", ""),
    ],
)
def test_a_reply_goes_on_with_the_block_that_its_prompt_opened(
    reply: str, reasoning: str, answer: str
) -> None:
    assert part_reasoning(reply, opened=True)[:2] == (reasoning, answer)


CHANNELS = "<|end|><|start|>assistant<|channel|>final<|message|>"


@pytest.mark.parametrize(
    ("reply", "reasoning", "answer"),
    [
        (f"<|channel|>analysis<|message|>Hm.{CHANNELS}Yes<|return|>", "Hm.", "Yes"),
        ("<|channel|>analysis<|message|>Cut sho", "Cut sho", ""),
        ("<|channel|>final<|message|>Yes", "", "Yes"),
        ("<|channel|>commentary to=f <|constrain|>json<|message|>{}<|call|>", "{}", ""),
        ("analysisHm.assistantfinalYes", "Hm.", "Yes"),
        ("analysis of the text", "", "analysis of the text"),
        ("[THINK]Hm.[/THINK]Yes", "Hm.", "Yes"),
        ("<thought>\nHm.\n</thought>\nYes", "Hm.", "Yes"),
        ("<seed:think>Hm.</seed:think>Yes", "Hm.", "Yes"),
        ("<|START_THINKING|>Hm.<|END_THINKING|>Yes", "Hm.", "Yes"),
        ("<|channel>thought\nHm.<channel|>Yes", "Hm.", "Yes"),
        ("Hm.[/THINK]Yes", "Hm.", "Yes"),
    ],
)
def test_marks_of_other_models_part_reasoning_too(reply: str, reasoning: str, answer: str) -> None:
    assert part_reasoning(reply)[:2] == (reasoning, answer)


def test_a_harmony_prompt_that_opens_a_channel() -> None:
    head = "<|start|>assistant<|channel|>analysis<|message|>"
    assert opens_reasoning(head)
    assert not opens_reasoning(head.replace("analysis", "final"))
    assert part_reasoning(f"Hm.{CHANNELS}Yes", opened=True)[:2] == ("Hm.", "Yes")


# A template that renders reasoning between marks of its own.
OWN = (
    "{% for m in messages %}{% if m.role == 'assistant' %}<reply>"
    "{% if m.reasoning_content %}((\n{{ m.reasoning_content }}\n))\n{% endif %}"
    "{{ m.content }}{% else %}<user>{{ m.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<reply>{% endif %}"
)
OWN_OPENED = OWN.replace("%}<reply>{% endif %}", "%}<reply>((\n{% endif %}")


def test_a_templates_own_marks_are_read_off_it(tmp_path: Path) -> None:
    lm = load_model(str(tiny_with(OWN, tmp_path / "own")))
    assert lm.marks == ("((\n", "\n))\n")
    assert lm.part_reasoning("((Hm.)) Yes", opened=False)[:2] == ("Hm.", "Yes")
    assert load_model(str(save_tiny(tmp_path / "plain"))).marks is None


@pytest.mark.parametrize(
    ("template", "opened"),
    [(OWN_OPENED, "((\n\n))\n"), (CHAT_TEMPLATE + OPENED, "<think>\n\n</think>\n\n")],
)
def test_refusal_is_looked_for_behind_the_reasoning(
    template: str, opened: str, tmp_path: Path
) -> None:
    """The first token of the answer is scored, not the first of the thoughts."""
    lm = load_model(str(tiny_with(template, tmp_path / "m")))
    assert lm.opens_reasoning("Hi")
    behind = [*lm.token_ids("Hi"), *lm.skip]
    assert lm.tokenizer.decode(behind).endswith(opened)
    [(_, log_p)] = lm.next_token_log_probabilities(["Hi"], 1)
    with torch.no_grad():
        logits = lm.model(input_ids=torch.tensor([behind])).logits[:, -1]
    torch.testing.assert_close(log_p, logits.log_softmax(-1), rtol=1e-4, atol=1e-4)


def test_a_model_that_begins_to_think_by_itself_is_skipped_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny_with(OWN, tmp_path / "m")
    assert load_model(str(folder)).skip == ()
    first = tiny_tokenizer()("(", add_special_tokens=False)["input_ids"][0]

    def thinks(self: LanguageModel, prompts: Sequence[str], _size: int) -> Any:
        yield [0, 1], torch.nn.functional.one_hot(torch.tensor([first] * 2), 261).float()

    monkeypatch.setattr(LanguageModel, "next_token_log_probabilities", thinks)
    lm = load_model(str(folder))
    assert lm.tokenizer.decode(list(lm.skip)) == "((\n\n))\n"


def test_special_tokens_that_mark_reasoning_are_kept_and_others_left_out(tmp_path: Path) -> None:
    lm = load_model(str(save_tiny(tmp_path)))
    special = ["[THINK]", "[/THINK]", "<|channel|>", "<|message|>", "<|end|>", "<|other|>"]
    lm.tokenizer.add_special_tokens({"additional_special_tokens": special})
    text = "[THINK]Hm.[/THINK]<|other|>Yes<eos>"
    ids = lm.tokenizer(text, add_special_tokens=False)["input_ids"]
    [reply] = lm.reply_texts([ids])
    assert reply == "[THINK]Hm.[/THINK]Yes"
    harmony = "<|channel|>analysis<|message|>Hm.<|end|><|channel|>final<|message|>Yes"
    ids = lm.tokenizer(harmony, add_special_tokens=False)["input_ids"]
    assert lm.part_reasoning(lm.reply_texts([ids])[0], opened=False)[:2] == ("Hm.", "Yes")


def test_a_prompt_opens_reasoning_where_it_ends_in_an_open_block() -> None:
    assert opens_reasoning("<user>Hi<reply><think>\n")
    assert not opens_reasoning("<user>Hi<reply><think>\n\n</think>\n\n")
    assert not opens_reasoning("<user>What does <think> mean?<reply>")


def tiny_with(template: str, folder: Path) -> Path:
    """A tiny model whose chat template is another."""
    save_tiny(folder)
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return folder


def test_the_switch_puts_other_text_before_the_reply(command: Command, tmp_path: Path) -> None:
    model = tiny_with(CHAT_TEMPLATE + SWITCH, tmp_path / "switched")
    heads, vectors = {}, {}
    for thinking in ("on", "off"):
        place = ("--out", tmp_path / "runs", "--name", thinking, "--thinking", thinking)
        result = command("represent", model, *SMALL_STAGES["represent"], *place)
        assert result.code == 0, result.err
        folder = tmp_path / "runs" / "switched" / thinking
        lm = run_at(folder).lm
        heads[thinking] = lm.tokenizer.decode(lm.token_ids("Hi"))
        vectors[thinking] = (folder / "representations").rglob("*.safetensors")
    assert heads["on"] == "<bos><user>Hi<reply>"
    assert heads["off"] == "<bos><user>Hi<reply><think>\n\n</think>\n\n"
    on, off = ([path.read_bytes() for path in sorted(vectors[t])] for t in ("on", "off"))
    assert on
    assert on != off


def test_a_template_without_the_switch_is_refused(
    command: Command, tiny_folder: Path, tmp_path: Path
) -> None:
    for thinking in ("on", "off"):
        message = command.fails("run", tiny_folder, "--thinking", thinking, "--out", tmp_path)
        assert "no switch for thinking in its chat template: leave --thinking" in message
    message = command.fails("run", tiny_folder, "--thinking", "loud", "--out", tmp_path)
    assert "'thinking'" in message


def test_replies_that_the_template_opens_with_reasoning_are_parted(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_with(CHAT_TEMPLATE + OPENED, tmp_path / "opened")
    place = ("--out", tmp_path / "runs")
    for stage in ("represent", "layers", "map"):
        result = command(stage, model, *SMALL_STAGES[stage], *place)
        assert result.code == 0, result.err

    def half_cut(_: Any, prompts: Sequence[str], **__: Any) -> list[Reply]:
        cut, whole = Reply("Hm, wh", ended=False), Reply("Hm.\n</think>\n\nYes", ended=True)
        return [cut if i % 2 else whole for i in range(len(prompts))]

    monkeypatch.setattr("somatlas.runs.stages.ablate_stage.generate", half_cut)
    result = command("ablate", model, *SMALL_STAGES["ablate"], *place, "--ids", "0")
    assert result.code == 0, result.err
    lines = (tmp_path / "runs" / "opened" / "default" / "completions" / "md.jsonl").read_text()
    rows = [json.loads(line) for line in lines.splitlines()]
    assert {(row["reasoning"], row["reply"]) for row in rows} == {("Hm.", "Yes"), ("Hm, wh", "")}


def judged(folder: Path, rows: Sequence[Completion], tokens: int) -> list[dict[str, Any]]:
    """What the judge stage says of replies of the base model, were they cut at so many tokens."""
    plain = [Completion("harmless", "", f"p {i}", f"Here it is: {i}") for i in range(4)]
    for condition in CONDITIONS:
        write_jsonl(folder / "completions" / f"{condition}.jsonl", map(asdict, [*plain, *rows]))
    config = run_at(folder).config.model_copy(update={"test_tokens": tokens})
    judge_stage(Run(config, folder))
    lines = (folder / "verdicts.jsonl").read_text().splitlines()
    verdicts = [json.loads(line) for line in lines]
    return [row for row in verdicts if row["condition"] == "base"][len(plain) :]


def test_what_is_thought_is_judged_apart_from_the_answer(whole: Path) -> None:
    rows = [
        Completion("harmful", "", "a", "Here it is", reasoning=REFUSAL),
        Completion("harmful", "", "b", REFUSAL, reasoning="They want the list, so I give it."),
        Completion("harmful", "", "c", REFUSAL),
        Completion("harmful", "", "d", "", reasoning=REFUSAL),
    ]
    found = judged(whole, rows, 96)
    thoughts = [row["reasoning_verdict"] for row in found]
    assert thoughts[0] == thoughts[3] == "refused"
    assert thoughts[1] in ("complied", "incoherent")
    assert thoughts[2] is None
    answers = [row["verdict"] for row in found]
    assert answers[0] != "refused"
    assert answers[1] == answers[2] == "refused"
    assert answers[3] == "incoherent"


@pytest.mark.parametrize(
    ("before", "tokens", "within"),
    [
        (0, 300, 32),
        (40, 300, 96),
        (90, 300, 256),
        (90, 96, 90 + len(REFUSAL)),  # longer than any count that is looked at
        (270, 300, 270 + len(REFUSAL)),
        (None, 300, None),
    ],
)
def test_a_late_refusal_is_counted_from_the_token_that_shows_it(
    whole: Path, before: int | None, tokens: int, within: int | None
) -> None:
    """A token is a character of the tiny model's."""
    reply = "Here it is" if before is None else "." * before + REFUSAL
    [row] = judged(whole, [Completion("harmful", "", "a", reply)], tokens)
    assert row["shown_within"] == within


def test_what_is_only_thought_shows_no_refusal(whole: Path) -> None:
    [row] = judged(whole, [Completion("harmful", "", "a", "Here it is", reasoning=REFUSAL)], 96)
    assert row["shown_within"] is None
