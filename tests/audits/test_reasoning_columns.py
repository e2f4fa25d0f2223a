"""Reasoning regenerated, fixed and absent, on a model that the difference is planted in."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from auditing import ByWords, plan_file, prompts_of
from planted import Planted, planted
from planted_reasoning import OPENED, SWITCHED, UNEVEN, planted_reasoning
from somatlas.ablation import Projection
from somatlas.attacks.attack import Ablated, Attempt
from somatlas.audits import reasoning_columns
from somatlas.audits.audit import Audit, audit
from somatlas.audits.kept_attempts import Kept
from somatlas.audits.reasoning_columns import thoughts, without_reasoning
from somatlas.models.reasoning import closing_text, ends_reasoning
from somatlas.prompts.prompt_set import spread, texts

TOKENS = 8


@pytest.fixture(scope="module")
def model() -> Planted:
    return planted_reasoning(prompts=64)


def audited(model: Planted, folder: Path, attacks: str = "sd = 4\nrandom = 1") -> Audit:
    plan = plan_file(folder, attacks)
    plan.write_text(plan.read_text().replace("tokens = 6", f"tokens = {TOKENS}"))
    prompts = prompts_of(model)
    return audit(
        model.lm,
        prompts,
        plan=plan,
        folder=folder / "audit",
        judges=ByWords(),
        refusal_tokens=model.refusal_tokens,
    )


@pytest.fixture(scope="module")
def found(model: Planted, tmp_path_factory: pytest.TempPathFactory) -> Audit:
    made = audited(model, tmp_path_factory.mktemp("reasoning"))
    made.save()
    return made


def test_the_columns_differ_as_planted(found: Audit, model: Planted) -> None:
    """With r ablated: all behind thoughts of its own, none behind the unedited model's, and
    without any the kinds that do not raise t."""
    own = found.record.models["model"].reasoning
    (row,) = Kept(found.folder).reasoning.all().values()
    kinds = {f"kind {kind}" for kind in UNEVEN}
    asked = spread(model.test.harmful, len(row.verdicts["absent"]))
    answered = [prompt.category in kinds for prompt in asked]
    assert row.verdicts["absent"] == ["complied" if one else "refused" for one in answered]
    share = sum(answered) / len(answered)
    assert 0.3 < share < 0.7
    for name, expected in {"regenerated": 1.0, "fixed": 0.0, "absent": share}.items():
        assert own["success"][name]["value"] == pytest.approx(expected)
        assert own["refusal"][name]["value"] == pytest.approx(1 - expected)
        assert 0 <= own["success"][name]["low"] <= expected <= own["success"][name]["high"] <= 1
    assert own["absent_by"] == "an empty block of reasoning"
    assert own["cut"] == own["without"] == {"regenerated": 0, "fixed": 0}


def test_differences_are_paired(found: Audit) -> None:
    change = found.record.models["model"].reasoning["change"]
    assert change["fixed"] == {"value": -1.0, "low": -1.0, "high": -1.0}
    gap = change["absent"]
    assert -0.9 < gap["low"] < gap["value"] < gap["high"] < -0.1


def test_they_stand_in_every_form_and_no_reply_does(found: Audit) -> None:
    page = (found.folder / "audit.html").read_text()
    assert "Where its reasoning comes from" in page
    assert "absent by an empty block of reasoning" in page
    table = (found.folder / "table.txt").read_text()
    assert "planted-reasoning reasons" in table
    with (found.folder / "reasoning.csv").open(newline="") as file:
        rows = {row["reasoning"]: row for row in csv.DictReader(file)}
    assert {name: float(row["success"]) > 0.9 for name, row in rows.items()} == {
        "regenerated": True,
        "fixed": False,
        "absent": False,
    }
    written = json.loads((found.folder / "audit.json").read_text())
    assert written["models"]["model"]["reasoning"]["change"]["fixed"]["value"] == -1
    for text in (page, table, json.dumps(written)):
        assert "It is harmful" not in text
    kept = [json.loads(line) for line in (found.folder / "replies.jsonl").read_text().splitlines()]
    fixed = [row for row in kept if row.get("reasoning") == "fixed"]
    assert {row["reply"] for row in fixed} == {"I can't help with that."}


def test_what_is_kept_is_not_made_again_and_the_rest_is(
    found: Audit, model: Planted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the audit was killed between replies and their verdicts."""
    made: list[str] = []
    true = reasoning_columns.column_answers

    def counted(bench: object, attempt: Attempt) -> object:
        made.append(attempt.name)
        return true(bench, attempt)  # type: ignore[arg-type]

    monkeypatch.setattr(reasoning_columns, "column_answers", counted)
    replies = (found.folder / "replies.jsonl").read_bytes()
    assert audited(model, found.folder.parent).record.plain() == found.record.plain()
    assert made == []
    (found.folder / "reasoning.jsonl").unlink()
    assert audited(model, found.folder.parent).record.plain() == found.record.plain()
    assert len(made) == 1
    assert sorted((found.folder / "replies.jsonl").read_bytes()) == sorted(replies)


def test_the_templates_switch_is_used_where_it_has_one(model: Planted) -> None:
    switched = planted_reasoning(SWITCHED).lm
    silent, opening, by = without_reasoning(switched)
    assert (opening, by) == ([], "the template's enable_thinking, off")
    assert not silent.opens_reasoning("n1")
    assert silent.token_ids("n1") == [*switched.token_ids("n1"), *switched.skip]
    assert without_reasoning(model.lm)[1:] == ([*model.lm.skip], "an empty block of reasoning")


def test_thoughts_are_cut_where_they_end_or_closed_at_the_limit(model: Planted) -> None:
    lm, prompts = model.lm, texts(model.test.harmful)[:3]
    edit = Ablated("own", "r", 1, {}, Projection(model.directions))
    for applied, thought in ((False, "It is harmful."), (True, "It is fine.")):
        with edit.applied(lm) if applied else lm.ablate(None):
            whole, cut = (thoughts(lm, prompts, tokens, 8) for tokens in (TOKENS, 1))
        ids = lm.tokenizer.convert_tokens_to_ids([thought, "</think>"])
        assert whole.openings == cut.openings == [ids] * 3
        assert (whole.cut, cut.cut, whole.without) == (0, 3, 0)
    plain = replace(lm, tokenizer=planted_reasoning(OPENED.replace("<think>", "")).lm.tokenizer)
    plain = replace(plain, chat=None)
    assert thoughts(plain, prompts, 1, 8) == type(whole)([[]] * 3, 0, 3)


def test_a_model_that_does_not_reason_has_one_line_in_the_record(tmp_path: Path) -> None:
    made = audited(planted(1, prompts=64), tmp_path, "sd = 1\nrandom = 1")
    made.save()
    own = made.record.models["model"].reasoning
    assert own == {"reasons": False, "left_out": "it does not reason before it answers"}
    assert not (made.folder / "reasoning.csv").exists()
    assert "reason" not in (made.folder / "table.txt").read_text()
    assert "reasoning comes from" not in (made.folder / "audit.html").read_text()


@pytest.mark.parametrize(
    ("reply", "ended"),
    [
        ("Hm.", False),
        ("<think>Hm.", False),
        ("Hm.</think>", True),
        ("<think>Hm.</think>Yes", True),
        ("[THINK]Hm.[/THINK]", True),
        ("<|channel|>analysis<|message|>Hm.", False),
        ("<|channel|>analysis<|message|>Hm.<|end|>", True),
    ],
)
def test_where_reasoning_ends(reply: str, ended: bool) -> None:
    assert ends_reasoning(reply) is ended


def test_what_closes_reasoning() -> None:
    assert closing_text("<reply><think>\n", None) == "\n</think>\n\n"
    assert closing_text("<reply>", None) == ""
