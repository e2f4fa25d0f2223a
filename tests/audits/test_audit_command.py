"""`somatlas audit` as a user calls it: what it writes, and what it refuses before it loads."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest

from auditing import plan_file
from command import Command, Result
from conftest import save_tiny, tiny_llama, tiny_tokenizer
from shuffled_fleet import ShuffledFleet, sent
from somatlas.audits import audit_fleet
from somatlas.audits.audit_fleet import audit_job, hold
from somatlas.audits.bench import Means
from somatlas.fleet import ray_cluster
from somatlas.fleet.ray_cluster import Cluster
from somatlas.runs.folder import Run

ATTACKS = "sd = 1\nrandom = 2"
GIVEN = ("--refusal-tokens", "10,20")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("models") / "other", seed=1)


@pytest.fixture
def unloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """No model may be loaded."""

    def load(*_: object, **__: object) -> None:
        raise AssertionError("a model was loaded")

    for place in ("somatlas.runs.folder", "somatlas.models.load"):
        monkeypatch.setattr(f"{place}.load_model", load)


def test_an_audit_from_the_command_goes_on_where_it_was(
    command: Command, tiny_folder: Path, other: Path, tmp_path: Path
) -> None:
    plan = plan_file(tmp_path, ATTACKS)
    line = ("audit", tiny_folder, "--against", other, "--plan", plan, *GIVEN, "--out", tmp_path)
    first = command(*line)
    assert first.code == 0, first.err
    folder = tmp_path / "tiny" / "audit-against-other"
    assert f"page: {folder / 'audit.html'}" in first.out
    assert "Breaks at a drift of" in first.out
    assert "exploratory plan tiny.toml, sha256 " in first.out
    assert (folder / "plan.json").exists()
    before = (folder / "attempts.jsonl").read_bytes()
    shared = on_workers(command, *line[:-1], tmp_path / "shared")
    assert shared.out.splitlines()[:-1] == first.out.splitlines()[:-1]  # all but the page's path
    assert contents(tmp_path / "shared" / "tiny") == contents(tmp_path / "tiny")
    again = command(*line)
    assert again.out == first.out
    assert (folder / "attempts.jsonl").read_bytes() == before
    said = command.fails(*line, "--budget", "4")
    assert "holds an audit with budget = 1, not 4" in said
    assert "give another --name" in said
    renamed = command.fails(
        *line[:2], "--plan", plan, *GIVEN, "--out", tmp_path, "--name", folder.name
    )
    assert "holds an audit with other as against, not none" in renamed


def on_workers(command: Command, *line: str | Path) -> Result:
    """Two workers that each are told their job, as on Ray, and hold models of their own."""

    def make_fleet(runs: Mapping[str, Run], means: Means) -> ShuffledFleet:
        job = sent(audit_job(runs, means, Cluster("none", 1, 2, 0.0)))
        return ShuffledFleet(lambda: hold(job, None), 2, seed=0)

    with command.patch.context() as patch:
        patch.setattr(audit_fleet, "make_audit_fleet", make_fleet)
        return command(*line)


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.usefixtures("unloaded")
@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (
            ("--plan", "quickest"),
            "there is no plan 'quickest': it must be quick or full, or a TOML",
        ),
        (("--plan", "gone.toml"), "plan gone.toml does not exist"),
        (("--plan", "unknown.toml"), "there is no attack 'som-9': it must be one of sd, som,"),
        (("--plan", "strip.toml"), "'strip' of the plan takes something of a second model"),
        (("--budget", "2"), "'2' is not one of '1', '4'"),
        (("--relearn",), "plan quick has no attack that trains the model"),
        (("--judge", "nobody"), "must be"),
        (("--against", "wide", "--plan", "strip.toml"), "wide has d_model 16 and tiny 32"),
        (("--against", "words", "--plan", "strip.toml"), "words has another vocabulary than tiny"),
        (("--against", "elsewhere/tiny"), "has the model's own name"),
        (("--against", "nowhere"), "nowhere"),
        (("--max-missing", "2"), "max_missing"),
        (("--workers", "0"), "setting 'workers' cannot be '0'"),
        (("--ray", "127.0.0.1:1"), "no Ray cluster can be joined at 127.0.0.1:1"),
        (("--workers", "2", "--device", "cuda:1"), "leave the number out"),
        (("--gpus-per-worker", "1"), "has no meaning without workers"),
    ],
)
def test_bad_input_is_one_sentence_before_a_model_is_loaded(
    command: Command,
    tiny_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    flags: tuple[str, ...],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("unknown.toml").write_text("[attacks]\nsom-9 = 2\n")
    Path("strip.toml").write_text("[attacks]\nstrip = 2\n")
    monkeypatch.setattr(ray_cluster, "installed", lambda: WithoutNodes)
    if "wide" in flags or "words" in flags:
        _other(flags[1])
    assert said in command.fails("audit", tiny_folder, *GIVEN, *flags)
    assert not Path("runs").exists()


class WithoutNodes:
    """What stands for Ray: a cluster of one machine without GPUs."""

    is_initialized = staticmethod(lambda: False)
    init = staticmethod(lambda **_: None)
    nodes = staticmethod(lambda: [{"Alive": True, "Resources": {}}])
    exceptions = SimpleNamespace(RayError=OSError)


@pytest.mark.usefixtures("unloaded")
def test_workers_without_ray_are_said_once(
    command: Command, tiny_folder: Path, other: Path, tmp_path: Path
) -> None:
    command.patch.setitem(sys.modules, "ray", None)
    line = ("audit", tiny_folder, "--against", other, "--out", tmp_path, *GIVEN)
    said = command.fails(*line, "--workers", "2")
    assert said.count("pip install 'somatlas[ray]'") == 1
    assert not list(tmp_path.iterdir())


def _other(name: str) -> None:
    """A checkpoint of another width, or of another vocabulary."""
    model, tokenizer = tiny_llama(), tiny_tokenizer()
    if name == "words":
        tokenizer.add_tokens(["word"])
    else:
        model.config.hidden_size = 16
    model.config.save_pretrained(name)
    tokenizer.save_pretrained(name)
