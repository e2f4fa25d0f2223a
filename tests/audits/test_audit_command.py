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
from somatlas import InputError, open_run
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


PLANS = {
    "strip": "[attacks]\nstrip = 2\n",
    "judge": "judge = 'nope'\n[attacks]\nsd = 2\n",
    "more": "more_judges = ['keyword', 'classifier']\n[attacks]\nsd = 2\n",
    "true": "[attacks]\nsd = true\n",
    "own": "[attacks]\nrandom = 1\n[attack_settings.random]\nks = [true]\n",
    "wide": "[attacks]\ngradient = 1\n[attack_settings.gradient]\nks = [1, 99]\n",
    "none": "[attacks]\ngradient = 1\n[attack_settings.gradient]\nks = []\n",
    "zero": "[attacks]\npca = 1\n[attack_settings.pca]\nlayers = 0\n",
}
OTHERS = ("wide", "words", "small")


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
        (("--judge", "nobody"), "there is no judge 'nobody': it must be keyword, classifier:MODEL"),
        (("--plan", "judge.toml"), "there is no judge 'nope': it must be keyword, classifier:"),
        (("--plan", "more.toml"), "judge 'classifier' must be classifier:MODEL for the"),
        (("--plan", "true.toml"), "attacks: must be a number where true stands"),
        (("--plan", "own.toml"), "'ks' of attack 'random' cannot be [True]: must be a number"),
        (("--plan", "wide.toml"), "'gradient' is to make 99 directions of vectors of 32 dim"),
        (("--plan", "none.toml"), "setting 'ks' of attack 'gradient' cannot be []"),
        (("--plan", "zero.toml"), "setting 'layers' of attack 'pca' cannot be 0"),
        (("--refusal-tokens", "999"), "refusal token 999 is not in the vocabulary of 261"),
        (("--refusal-tokens", "-5"), "refusal token -5 is not in the vocabulary of 261"),
        (("--refusal-tokens", "10,10"), "refusal tokens must be different ids"),
        (("--refusal-tokens", ""), "setting 'refusal_tokens' cannot be '': must not be empty"),
        (
            ("--against", "small", "--refusal-tokens", "10,260"),
            "refusal token 260 is not in the vocabulary of 200",
        ),
        (("--name", ".replies"), "must be a plain folder name, which begins with no dot"),
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
    for name, content in PLANS.items():
        Path(f"{name}.toml").write_text(content)
    monkeypatch.setattr(ray_cluster, "installed", lambda: WithoutNodes)
    if flags[0] == "--against" and flags[1] in OTHERS:
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


@pytest.mark.usefixtures("unloaded")
@pytest.mark.parametrize("there", ["config.toml", "sweep.json", "plan.json"])
def test_a_folder_is_of_a_run_or_a_sweep_or_an_audit(
    command: Command, tiny_folder: Path, tmp_path: Path, there: str
) -> None:
    folder = tmp_path / "tiny" / "mine"
    folder.mkdir(parents=True)
    (folder / there).write_text("" if there == "config.toml" else "{}")
    place = ("--name", "mine", "--out", tmp_path)
    kept = {
        "config.toml": ("run", ("run", tiny_folder, *place)),
        "sweep.json": ("sweep", ("sweep", tiny_folder, *place, "--over", "k=1-2")),
        "plan.json": ("audit", ("audit", tiny_folder, *place, *GIVEN)),
    }
    whose, _ = kept.pop(there)
    for kind, line in kept.values():
        said = command.fails(*line)
        assert f"mine holds {'an' if whose == 'audit' else 'a'} {whose} (its {there} is" in said
        assert f"is no place for {'an' if kind == 'audit' else 'a'} {kind}" in said
    if whose != "run":
        (folder / "config.toml").write_text("seed = 1\n")
        assert f"{whose} (its {there}" in command.fails("report", folder)
        with pytest.raises(InputError, match=f"{whose} .its {there}"):
            open_run(folder)


def _other(name: str) -> None:
    """A checkpoint of another width, or of another or a smaller vocabulary."""
    model, tokenizer = tiny_llama(), tiny_tokenizer()
    if name == "words":
        tokenizer.add_tokens(["word"])
    elif name == "small":
        model.config.vocab_size = 200
    else:
        model.config.hidden_size = 16
    model.config.save_pretrained(name)
    tokenizer.save_pretrained(name)
