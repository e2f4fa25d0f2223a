"""An audit is the same whoever carries it out, in whatever order its attempts come back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from auditing import ByWords, plan_file, prompts_of
from fake_server import fake_server
from judging import by_words
from planted import Planted, planted
from planted_reasoning import planted_reasoning
from shuffled_fleet import ShuffledFleet, sent
from somatlas.attacks.attack import Attempt, Outcome, Rounds
from somatlas.audits import proving
from somatlas.audits.attacking import Attacking
from somatlas.audits.audit import Audit, carry_out, means_of
from somatlas.audits.audit_fleet import check_learning, in_place
from somatlas.audits.audit_plan import load_plan
from somatlas.audits.bench import Held
from somatlas.audits.kept_attempts import Known
from somatlas.audits.preparing import prepare
from somatlas.audits.trail import End, Later, Trail
from somatlas.errors import InputError
from somatlas.fleet import Fleet
from somatlas.judges.registry import Judges
from somatlas.runs.settings import Config

PLAN = """
sd = 5
som = 5
gradient = 1
transfer = 1
relearning = 1
[attack_settings.som]
ks = [3, 2, 1]
grids = [[3, 3]]
[attack_settings.gradient]
steps = 1
[attack_settings.relearning]
replies = [16]
steps = [2]
rates = [0.03]
"""


@pytest.fixture(scope="module")
def models() -> Mapping[str, Planted]:
    return {"model": planted(3, prompts=36), "against": planted(1, prompts=36)}


def audited(
    models: Mapping[str, Planted],
    folder: Path,
    workers: int,
    *,
    attacks: str = PLAN,
    sees_folder: bool = True,
    judges: Judges | None = None,
    **changes: Any,
) -> tuple[Audit, Fleet[Held]]:
    """An audit by so many workers that get lost, or by this process where there is none."""
    lms, first = {role: one.lm for role, one in models.items()}, models["model"]
    judges = judges or ByWords()
    folder.mkdir(parents=True, exist_ok=True)
    plan = plan_file(folder, attacks, "screen_prompts = 12\n")
    prepared = prepare(
        prompts_of(first),
        folder,
        {r: lm.name for r, lm in lms.items()},
        plan,
        judges,
        relearn=attacks is PLAN,
        **changes,
    )
    means = means_of(prepared, refusal_tokens=first.refusal_tokens)
    prepared.fix()

    def held() -> Held:
        place = folder / "work" if sees_folder else None
        return Held(lms, sent(means), ByWords(), place, is_driver=False)

    fleet: Fleet[Held] = (
        ShuffledFleet(held, workers, seed=workers, anew=True)
        if workers
        else in_place(lms, means, judges)
    )
    found = carry_out(prepared, means, fleet)
    found.record.write(folder)  # what its pages and tables are made of
    return found, fleet


def contents(folder: Path, *, without: str = "") -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    named = {str(path.relative_to(folder)): path.read_bytes() for path in files}
    return {name: text for name, text in named.items() if not without or without not in name}


@pytest.fixture(scope="module")
def alone(models: Mapping[str, Planted], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an audit that one process carried out."""
    folder = tmp_path_factory.mktemp("alone")
    found, _ = audited(models, folder, 0)
    left_out = {one.attack: one.left_out for one in found.record.models["model"].families}
    assert "no reply of planted-3" in left_out["relearning"]  # which an attack itself found
    tried = {one.attack: one.trials for one in found.record.models["against"].families}
    assert tried == {"sd": 4, "som": 5, "gradient": 1, "transfer": 0, "relearning": 1}
    return folder


def test_four_workers_that_come_back_in_any_order_make_the_files_of_one_process(
    models: Mapping[str, Planted], alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the audit's folder at hand they make more of it themselves, and the same."""
    sizes: list[int] = []
    keep = Attacking._keep

    def kept(self: Attacking, steps: Any, results: Any, advance: Any) -> None:
        sizes.append(len(steps))
        keep(self, steps, results, advance)

    monkeypatch.setattr(Attacking, "_keep", kept)
    _, fleet = audited(models, tmp_path, 4, sees_folder=False)
    assert isinstance(fleet, ShuffledFleet)
    assert fleet.lost > 3
    assert {2, 4} <= set(sizes)  # a round is shared where there are more workers than attacks
    assert contents(tmp_path) == contents(alone, without="work/")


def test_one_that_is_killed_goes_on_with_other_workers_and_ends_as_if_left_alone(
    models: Mapping[str, Planted], alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed among the attacks, in the middle of a line, and between a test's two files."""

    def killed_after(calls: int, work: Callable[..., Any]) -> Callable[..., Any]:
        left = iter(range(calls - 1))

        def dying(*arguments: Any) -> None:
            work(*arguments)
            if next(left, None) is None:
                raise KeyboardInterrupt

        return dying

    for place, name, calls in ((Attacking, "_keep", 7), (proving, "append_rows", 3)):
        with monkeypatch.context() as patch:
            patch.setattr(place, name, killed_after(calls, getattr(place, name)))
            with pytest.raises(KeyboardInterrupt):
                audited(models, tmp_path, 2)
        path = tmp_path / "attempts.jsonl"
        path.write_bytes(path.read_bytes()[:-40])
        (tmp_path / "families.jsonl").unlink(missing_ok=True)
    audited(models, tmp_path, 0)
    assert contents(tmp_path) == contents(alone)


def test_only_the_driver_asks_a_servers_judge(
    models: Mapping[str, Planted], tmp_path: Path
) -> None:
    """Workers know neither its address nor its key."""
    one = {"model": models["model"]}
    plan: dict[str, Any] = {"attacks": "sd = 1\n", "judge": "endpoint:judge"}
    with fake_server(by_words) as server:
        found = {}
        for workers in (0, 2):
            judges = Served({"endpoint_url": server.url})
            where = tmp_path / str(workers)
            found[workers], _ = audited(
                one, where, workers, judges=judges, more_judges=("keyword",), **plan
            )
    assert contents(tmp_path / "0") == contents(tmp_path / "2")
    assert list(found[2].record.judges) == ["endpoint:judge", "keyword"]


def test_where_reasoning_comes_from_is_the_same_on_workers(tmp_path: Path) -> None:
    """With a judge that only the driver asks."""
    one = {"model": planted_reasoning(prompts=36)}
    plan: dict[str, Any] = {"attacks": "sd = 1\n", "judge": "endpoint:judge"}
    with fake_server(by_words) as server:
        for workers in (0, 2):
            judges = Served({"endpoint_url": server.url})
            where = tmp_path / str(workers)
            found, _ = audited(one, where, workers, judges=judges, **plan)
    assert contents(tmp_path / "0") == contents(tmp_path / "2")
    success = found.record.models["model"].reasoning["success"]
    assert (success["regenerated"]["value"], success["fixed"]["value"]) == (1.0, 0.0)


def test_workers_do_not_learn_from_what_a_servers_judge_finds_compliant() -> None:
    served: dict[str, Any] = {"judge": "endpoint:judge", "endpoint_url": "http://localhost/v1"}
    plan = load_plan("full", relearn=True, judge="endpoint:judge")
    with pytest.raises(InputError, match="only one process asks that judge: leave out --ray"):
        check_learning(Config(workers=2, **served), plan)
    check_learning(Config(**served), plan)
    check_learning(Config(workers=2, **served), plan.model_copy(update={"relearn": False}))


class Served(Judges):
    """A server's judge, and refusals by their words."""

    def get(self, spec: str, coherence: object) -> Any:
        return ByWords().get(spec, None) if spec == "keyword" else super().get(spec, None)


def _known(*names: str) -> list[Known]:
    return [Known(name, 1, Outcome(i / 10, 0, 0, 0, 0.1)) for i, name in enumerate(names)]


def _rounds(told: list[list[float]]) -> Rounds:
    """Two rounds of two, then what cannot be."""
    for names in ("ab", "cd"):
        outcomes = yield [Attempt("test", name, 1, {}) for name in names]
        told.append([one.asr for one in outcomes])
    raise InputError("there is nothing left to try")


def test_a_trail_goes_as_far_as_outcomes_are_known() -> None:
    told: list[list[float]] = []
    trail = Trail("test", _rounds(told))
    assert trail.attempt(2, []) == Later()
    assert trail.attempt(1, []) == Attempt("test", "b", 1, {})
    assert trail.attempt(2, _known("a")) == Later()
    assert trail.attempt(3, _known("a", "b")) == Attempt("test", "d", 1, {})
    assert trail.attempt(0, _known("a", "b", "c")) == Attempt("test", "a", 1, {})
    assert told == [[0.0, 0.1]]
    assert trail.attempt(4, _known("a", "b", "c", "d")) == End("there is nothing left to try")
    assert told == [[0.0, 0.1], [0.2, 0.3]]
    assert Trail("test", _rounds([])).attempt(5, _known("a", "b", "c", "d")) == trail.attempt(5, [])


def test_an_attack_that_makes_other_attempts_than_before_is_said() -> None:
    with pytest.raises(InputError, match="'test' makes 'b' where it made 'x' before: its code"):
        Trail("test", _rounds([])).attempt(2, _known("a", "x"))
