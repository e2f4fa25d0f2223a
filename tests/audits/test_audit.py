"""An audit of planted models from its plan to its record; what a killed one goes on from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from auditing import ByWords, plan_file, prompts_of
from command import without_figures
from planted import ANSWER, REFUSAL, Planted, planted
from somatlas.attacks import measuring
from somatlas.audits import attacking
from somatlas.audits.audit import Audit, audit
from somatlas.audits.audit_plan import Plan
from somatlas.errors import InputError

ATTACKS = """
sd = 4
som = 7
random = 3
prefill = 2
{}
[attack_settings.som]
ks = [3, 2, 1]
grids = [[3, 3]]
"""
FILES = ("audit.json", "audit.csv", "audit.html", "table.txt", "plan.json")


@pytest.fixture(scope="module")
def three() -> Planted:
    return planted(3, prompts=64)


@pytest.fixture(scope="module")
def one() -> Planted:
    return planted(1, prompts=64)


def audited(model: Planted, folder: Path, plan: Path, **more: object) -> Audit:
    return audit(
        model.lm,
        prompts_of(model),
        plan=plan,
        folder=folder,
        judges=ByWords(),
        refusal_tokens=model.refusal_tokens,
        **more,  # type: ignore[arg-type]
    )


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plan_file(tmp_path_factory.mktemp("plan"), ATTACKS.format(""))


@pytest.fixture(scope="module")
def both(three: Planted, one: Planted, tmp_path_factory: pytest.TempPathFactory) -> Audit:
    """Three redundant directions against one."""
    folder = tmp_path_factory.mktemp("both")
    plan = plan_file(folder, ATTACKS.format("transfer = 2"))
    return audited(three, folder / "audit", plan, against=one.lm)


def test_three_redundant_directions_are_said_to_be_three(both: Audit) -> None:
    model, against = both.record.models["model"], both.record.models["against"]
    assert model.rank_to_break is not None
    assert model.rank_to_break["least"] == model.rank_to_break["most"] == 3
    assert against.rank_to_break is not None
    assert against.rank_to_break["least"] == 1
    single = {role: found.families[0] for role, found in both.record.models.items()}
    assert single["model"].trials_to_break is None
    assert single["against"].trials_to_break == 1
    assert model.unattacked["refusal"] == {
        "value": 1,
        "low": pytest.approx(0.86, abs=0.01),
        "high": 1,
    }


def test_attacks_that_count_make_the_frontier_and_others_stand_beside(both: Audit) -> None:
    families = {one.attack: one for one in both.record.models["model"].families}
    assert [name for name, one in families.items() if one.headline] == ["sd", "som"]
    assert families["prefill"].opens
    assert families["transfer"].threat == "C"
    left_out = {one.attack: one.left_out for one in both.record.models["against"].families}
    assert "second model" in left_out["transfer"]
    assert not left_out["som"]
    assert {row["attack"] for row in both.record.models["model"].best} <= {"none", "sd", "som"}


def test_what_is_chosen_on_val_is_what_test_measures(both: Audit) -> None:
    model = both.record.models["model"]
    for row in model.best:
        own = [
            t
            for t in model.trials
            if t["attack"] in ("none", "sd", "som") and t["kl"] <= row["cap"]
        ]
        assert row["val_success"] == max(t["asr"] for t in own)
        assert row["val_kl"] <= row["cap"]


def test_the_random_floor_and_the_other_models_directions_are_checked(both: Audit) -> None:
    passed = {(row["model"], row["name"]): row["passed"] for row in both.record.findings}
    assert passed["model", "random directions are at the floor"]
    assert passed["model", "fresh directions beat transferred ones"]
    assert passed["against", "fresh directions beat transferred ones"] is None
    assert passed["model", "directions are not hidden"] is None
    assert both.record.verdict is not None
    assert both.record.between is not None


def test_replies_stay_in_the_folder_alone(both: Audit) -> None:
    page = both.save()
    assert page == both.folder / "audit.html"
    shown = [both.folder / name for name in FILES]
    for path in shown:
        text = path.read_text(encoding="utf-8")
        assert not [words for words in (*REFUSAL[1:], *ANSWER) if words in text]
    assert ANSWER[0] in (both.folder / "replies.jsonl").read_text(encoding="utf-8")


def test_a_killed_audit_ends_as_one_that_was_left_alone(
    three: Planted, plan: Path, tmp_path: Path
) -> None:
    """Killed in the middle of an attack, of a line, and of the test."""
    audited(three, tmp_path / "whole", plan).save()
    expected = {name: (tmp_path / "whole" / name).read_bytes() for name in FILES}
    for number, (name, share) in enumerate({"attempts.jsonl": 0.61, "tested.jsonl": 0.4}.items()):
        folder = tmp_path / str(number)
        shutil.copytree(tmp_path / "whole", folder)
        for later in ("families.jsonl", "recognition.jsonl", "audit.json", "audit.html"):
            (folder / later).unlink()
        if name == "attempts.jsonl":
            (folder / "tested.jsonl").unlink()
            shutil.rmtree(folder / "work")
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(share * len(content))])
        audited(three, folder, plan).save()
        assert {name: (folder / name).read_bytes() for name in FILES} == expected


def cut(path: Path, share: float) -> None:
    """As a disk that was full leaves a file; nothing of it is left at 0."""
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])


@pytest.fixture(scope="module")
def finished(three: Planted, plan: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an audit that came to its end, with an attack that ended early: of 7 attempts
    asked for, sd has 4 layers; and one that was left out."""
    folder = tmp_path_factory.mktemp("finished") / "audit"
    early = plan_file(folder.parent, ATTACKS.format("relearning = 1").replace("sd = 4", "sd = 7"))
    early.replace(folder.parent / "early.toml")
    with pytest.MonkeyPatch.context() as patch:
        without_figures(patch)
        audited(three, folder, folder.parent / "early.toml").save()
    return folder


@pytest.mark.parametrize(
    ("name", "share"),
    [
        ("attempts.jsonl", 0.5),
        ("attempts.jsonl", 0.0),
        ("families.jsonl", 0.5),
        ("tested.jsonl", 0.5),
        ("replies.jsonl", 0.5),
        ("replies.jsonl", 0.0),
        ("recognition.jsonl", 0.0),
    ],
)
def test_what_a_finished_audit_has_lost_is_made_again(
    three: Planted, finished: Path, tmp_path: Path, name: str, share: float
) -> None:
    folder = tmp_path / "audit"
    shutil.copytree(finished, folder)
    cut(folder / name, share)
    audited(three, folder, finished.parent / "early.toml").save()
    for one in (*FILES, "attempts.jsonl", "families.jsonl"):
        assert (folder / one).read_bytes() == (finished / one).read_bytes(), one
    assert lines(folder / "replies.jsonl") == lines(finished / "replies.jsonl")


def lines(path: Path) -> list[str]:
    return sorted(path.read_text(encoding="utf-8").splitlines())


def test_a_row_that_is_not_as_it_was_written_is_made_again(
    three: Planted, finished: Path, tmp_path: Path
) -> None:
    """Of each file a row lacks a field, or has another value, or another's key."""
    folder = tmp_path / "audit"
    shutil.copytree(finished, folder)
    damages = {
        "attempts.jsonl": lambda row: row | {"key": row["key"][:-1] + "3"},
        "families.jsonl": lambda row: row | {"attempts": None},
        "tested.jsonl": lambda row: row | {"verdicts": []},
        "recognition.jsonl": lambda row: {**row, "harmless": {"value": 1.0}},
        "replies.jsonl": lambda row: {},
    }
    for name, damage in damages.items():
        rows = [json.loads(line) for line in (folder / name).read_text().splitlines()]
        rows[0] = damage(rows[0])
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    audited(three, folder, finished.parent / "early.toml").save()
    for one in FILES:
        assert (folder / one).read_bytes() == (finished / one).read_bytes(), one


def test_fewer_attempts_than_there_were_are_refused(
    three: Planted, finished: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "audit"
    shutil.copytree(finished, folder)
    rows = [json.loads(line) for line in (folder / "families.jsonl").read_text().splitlines()]
    (first,) = [row for row in rows if row["key"] == "model/0/sd"]
    assert first["attempts"] == 4
    first["attempts"] = 5
    (folder / "families.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(InputError, match=r"'sd' made 5 attempts before.* and makes 4 now"):
        audited(three, folder, finished.parent / "early.toml")


@pytest.mark.parametrize(
    ("name", "said"),
    [("models.jsonl", "models.jsonl does not name"), ("plan.json", "no plan.json that they were")],
)
def test_attempts_of_who_knows_what_are_refused(
    three: Planted, finished: Path, tmp_path: Path, name: str, said: str
) -> None:
    folder = tmp_path / "audit"
    shutil.copytree(finished, folder)
    (folder / name).unlink()
    with pytest.raises(InputError, match=said):
        audited(three, folder, finished.parent / "early.toml")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"refusal_tokens": [999]}, "refusal token 999 is not in the vocabulary of"),
        ({"refusal_tokens": [-5]}, "refusal token -5 is not in the vocabulary"),
        ({"refusal_tokens": [5, 5]}, "refusal tokens must be different ids"),
        ({"refusal_tokens": []}, "refusal tokens must be different ids, and one at least"),
        ({"refusal_tokens": [True]}, "refusal_tokens must be a list of whole numbers"),
        ({"folder": 3}, "folder must be a path, or None, not 3"),
        ({"plan": 3}, "plan must be quick, full or a TOML file, not 3"),
        ({"plan": None}, "plan must be quick, full or a TOML file, not None"),
        ({"prompts": "split"}, "prompts must be a PromptSet, or None, not a PromptSplit"),
        ({"judge": "x"}, "there is no judge 'x': it must be keyword"),
        ({"judge": 3}, "judge: input should be a valid string"),
        ({"more_judges": "keyword"}, "more_judges must be a list of names, not 'keyword'"),
        ({"more_judges": 3}, "more_judges must be a list of names, not 3"),
        ({"judges": [1]}, "judges must be Judges, or None, not a list"),
        ({"budget": True}, "budget: must be a number where true stands"),
        ({"seed": True}, "seed: must be a number where true stands"),
        ({"max_missing": 2}, "max_missing must be a number at least 0 and at most 1, not 2"),
        ({"say": 3}, "say must be a function of a line, not 3"),
    ],
)
def test_what_an_audit_cannot_be_told_is_one_sentence(
    three: Planted, plan: Path, tmp_path: Path, more: dict[str, Any], said: str
) -> None:
    prompts = three.train if more.get("prompts") else prompts_of(three)
    given = {"plan": plan, "folder": tmp_path / "audit", **more}
    given.pop("prompts", None)
    with pytest.raises(InputError, match=said):
        audit(three.lm, prompts, **given)  # type: ignore[arg-type]
    assert not (tmp_path / "audit").exists()


def test_an_attempt_is_measured_once(
    three: Planted, plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[str] = []

    def counted(asking: object, attempts: list[object], *more: object) -> object:
        measured.extend(f"{one.family} {one.name}" for one in attempts)  # type: ignore[attr-defined]
        if len(measured) > 8 and len(measured) < 20:
            measured[-len(attempts) :] = []
            monkeypatch.setattr(attacking, "said_under", counting)
            raise KeyboardInterrupt
        return true(asking, attempts, *more)  # type: ignore[arg-type]

    def counting(asking: object, attempts: list[object], *more: object) -> object:
        measured.extend(f"{one.family} {one.name}" for one in attempts)  # type: ignore[attr-defined]
        return true(asking, attempts, *more)  # type: ignore[arg-type]

    true = measuring.said_under
    monkeypatch.setattr(attacking, "said_under", counted)
    with pytest.raises(KeyboardInterrupt):
        audited(three, tmp_path, plan)
    found = audited(three, tmp_path, plan)
    assert len(set(measured)) == len(measured) == len(found.record.models["model"].trials)


def test_the_plan_is_written_first_and_holds(
    three: Planted, plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(attacking, "said_under", stop)
        with pytest.raises(KeyboardInterrupt):
            audited(three, tmp_path, plan)
    written = Plan.read(tmp_path)
    assert not (tmp_path / "attempts.jsonl").exists()
    assert json.loads((tmp_path / "plan.json").read_text())["exploratory"] is True
    assert written.prompts.keys() >= {"train_harmful", "val_harmless", "test_borderline"}
    with pytest.raises(InputError, match="holds an audit with budget = 1, not 4"):
        audited(three, tmp_path, plan, budget=4)


def test_a_folder_of_another_model_is_refused(three: Planted, one: Planted, both: Audit) -> None:
    plan = both.folder.parent / "tiny.toml"
    with pytest.raises(InputError, match="with planted-3 as model, not planted-1"):
        audit(
            one.lm,
            prompts_of(three),
            against=three.lm,
            plan=plan,
            folder=both.folder,
            judges=ByWords(),
        )
    changed = planted(3, prompts=64, seed=1)
    with pytest.raises(InputError, match="holds an audit of planted-3 with other weights"):
        audit(
            changed.lm,
            prompts_of(three),
            against=one.lm,
            plan=plan,
            folder=both.folder,
            judges=ByWords(),
            refusal_tokens=three.refusal_tokens,
        )


def test_four_times_the_budget_goes_on_from_the_plain_one(one: Planted, tmp_path: Path) -> None:
    plan = plan_file(tmp_path, "sd = 1\nrandom = 2")
    plain = audited(one, tmp_path / "1", plan)
    more = audited(one, tmp_path / "4", plan, budget=4)
    trials = {n: found.record.models["model"].trials for n, found in ((1, plain), (4, more))}
    assert [
        t for t in trials[4] if t["number"] < {"none": 1, "sd": 1, "random": 2}[t["attack"]]
    ] == trials[1]
    assert len(trials[4]) == 1 + 4 + 8
    assert more.record.models["model"].cost_x1 == plain.record.models["model"].cost
    names = {row["name"]: row["passed"] for row in more.record.findings}
    assert names["four times the budget is no worse"]
    unmade = {row["name"] for row in plain.record.findings if row["passed"] is None}
    assert {"four times the budget is no worse", "the search has ended"} <= unmade


def test_a_model_is_trained_where_that_is_asked_for_and_only_there(
    one: Planted, tmp_path: Path
) -> None:
    own = "[attack_settings.relearning]\nreplies = [16]\nsteps = [1, 20]\nrates = [0.03]"
    plan = plan_file(tmp_path, f"sd = 1\nrelearning = 2\n{own}")
    found = audited(one, tmp_path / "asked", plan, relearn=True).record.models["model"]
    trained = found.families[1]
    assert (trained.threat, trained.headline, trained.steps_to_break) == ("B", False, 20)
    assert [row["about"]["steps"] for row in found.trials if row["attack"] == "relearning"] == [
        1,
        20,
    ]
    left = audited(one, tmp_path / "not asked", plan).record.models["model"].families[1]
    assert "only with --relearn" in left.left_out
    assert (left.trials, left.cost) == (0, None)


def test_where_no_reply_complies_relearning_is_left_out_and_the_audit_goes_on(
    three: Planted, tmp_path: Path
) -> None:
    """Under one direction at a time the model still refuses by the other two."""
    plan = plan_file(tmp_path, "relearning = 2\nsd = 1")
    lines: list[str] = []
    found = audited(three, tmp_path / "asked", plan, relearn=True, say=lines.append)
    relearning, single = found.record.models["model"].families
    assert "there is nothing to relearn from" in relearning.left_out
    assert (relearning.trials, relearning.cost) == (0, None)
    assert (single.left_out, single.trials) == ("", 1)
    assert any("relearning left out: no reply of planted-3" in line for line in lines)
    assert "left out: relearning: no reply of planted-3" in found.table()
    again = audited(three, tmp_path / "asked", plan, relearn=True)
    assert again.record.plain() == found.record.plain()
