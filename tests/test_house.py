"""The house: which room may import which, names, and the files beside the package."""

from __future__ import annotations

import ast
import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import somatlas
from lowest import lowest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "somatlas"
PLUMBING = ("arguments", "errors", "files", "plugins", "progress", "records")
# A room may import what stands in a line above its own.
ORDER = (
    ("numerics", "fleet"),
    ("prompts", "directions", "ablation"),
    ("models",),
    ("representations",),
    ("measures",),
    ("judges", "completions", "exports"),
    ("evaluation", "searches"),
    ("atlases", "attacks"),
    ("runs",),
    ("report",),
    ("sweep", "audits"),
    ("cli",),
    ("testing",),
)
PLACE = {room: place for place, rooms in enumerate(ORDER) for room in rooms}
READERS = ("models", "measures", "judges", "completions", "evaluation")  # of a model's tensors


def modules() -> list[Path]:
    return [path.relative_to(PACKAGE) for path in sorted(PACKAGE.rglob("*.py"))]


def imported(path: Path) -> Iterator[str]:
    """Modules of the package that one imports, wherever it does; names of the root as such."""
    for node in ast.walk(ast.parse((PACKAGE / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            module = node.module or ""
            inside = PACKAGE.joinpath(*module.split(".")[1:])
            rooms = [a.name for a in node.names if (inside / a.name).with_suffix(".py").exists()]
            names = [f"{module}.{room}" for room in rooms] or [module]
        else:
            continue
        yield from (n.removeprefix("somatlas.") for n in names if n.startswith("somatlas."))


def against_the_order() -> set[tuple[str, str]]:
    found = set()
    for path in modules():
        if len(path.parts) == 1 and path.stem not in PLUMBING:
            continue  # __init__ and __main__ hand out what all rooms make
        own = PLACE.get(path.parts[0], -1)
        for name in imported(path):
            room = name.split(".")[0]
            same = room == path.parts[0] or (own == -1 and room in PLUMBING)
            if not same and PLACE.get(room, -1) >= own:
                found.add((path.as_posix(), name))
    return found


def test_every_room_has_a_place_in_the_order() -> None:
    rooms = {path.parts[0] for path in modules() if len(path.parts) > 1}
    assert rooms == set(PLACE)


def test_no_room_imports_one_that_stands_after_it() -> None:
    found = against_the_order()
    assert not found, f"imports against the order of the rooms: {sorted(found)}"


def test_no_two_modules_share_a_name() -> None:
    counts = Counter(path.stem for path in modules() if not path.stem.startswith("__"))
    assert not {name for name, count in counts.items() if count > 1}


def test_nothing_asks_a_device_for_float64() -> None:
    """MPS has none: `in_float64`, or on the CPU first."""
    for path in modules():
        if path.parts[0] in READERS:
            text = (PACKAGE / path).read_text(encoding="utf-8").replace(".cpu().double()", "")
            assert ".double()" not in text, path
            assert not re.search(r"\.to\([^)]*float64", text), path


def test_the_architecture_names_every_module_of_a_room() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rooms = text[text.index("## Rooms") : text.index("## Decisions")]
    own = {path.stem for path in modules() if len(path.parts) < 3 and path.stem[:2] != "__"}
    assert not own - set(re.findall(r"\w+", rooms))


def test_the_root_holds_plumbing_alone() -> None:
    assert {p.stem for p in modules() if len(p.parts) == 1} == {*PLUMBING, "__init__", "__main__"}
    assert len(PLUMBING) <= 6


def test_one_version_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert project["version"] == str(citation["version"]) == somatlas.__version__


def test_what_is_built_on_has_both_bounds() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert len(lowest()) == len(project["dependencies"])
    for name in ("transformers", "optuna", "peft", "torch"):
        (line,) = [d for d in project["dependencies"] if d.startswith(f"{name}>=")]
        assert ",<" in line
    assert not [d for d in project["dependencies"] if d.startswith("pip>=")]


def test_the_citation_has_what_its_format_requires() -> None:
    """Citation File Format 1.2.0: cff-version, message, title and authors, each with a name."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert citation["type"] in ("software", "dataset")
    assert isinstance(citation["message"], str)
    for work in (citation, *citation["references"]):
        assert isinstance(work["title"], str)
        assert work["authors"]
        for author in work["authors"]:
            assert "name" in author or {"family-names", "given-names"} <= author.keys()
    assert all("type" in work for work in citation["references"])


def test_pre_commit_runs_the_gates_own_linters() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    (local,) = config["repos"]
    assert local["repo"] == "local"
    assert all(hook["language"] == "system" for hook in local["hooks"])
    entries = [hook["entry"].removeprefix(".venv/bin/") for hook in local["hooks"]]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    gate = re.findall(r"\$\(BIN\)/((?:ruff|mypy)[^\n]*)", makefile)
    assert entries == [line.removesuffix(" .") for line in gate]


@pytest.mark.parametrize("words", ["security advisory", "No pickle", "--trust-remote-code"])
def test_security_says_what_is_safe_and_whom_to_tell(words: str) -> None:
    assert words in (ROOT / "SECURITY.md").read_text(encoding="utf-8")
