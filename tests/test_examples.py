"""What docstrings and pages show runs, and the API page shows what is public."""

from __future__ import annotations

import ast
import doctest
import re
from importlib import import_module
from pathlib import Path

import pytest

import somatlas

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"
WITH_EXAMPLES = sorted(p for p in SOURCE.rglob("*.py") if ">>> " in p.read_text(encoding="utf-8"))
NUMERIC = {"SOM", "DirectionSet", "Projection"}  # public names that need no model


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts)


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=module_name)
def test_examples_of_docstrings(path: Path) -> None:
    failed, tried = doctest.testmod(import_module(module_name(path)))
    assert tried
    assert not failed


@pytest.mark.parametrize("name", sorted(NUMERIC))
def test_public_numerics_have_an_example(name: str) -> None:
    assert ">>> " in (getattr(somatlas, name).__doc__ or "")


def test_public_names_are_what_a_checker_and_the_api_page_see() -> None:
    """The page is made from the source alone: a lazy name must be imported for type checkers."""
    tree = ast.parse((SOURCE / "somatlas" / "__init__.py").read_text(encoding="utf-8"))
    imported = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module != "typing"
        for alias in node.names
    }
    assert set(somatlas.__all__) - {"__version__"} <= imported
    for name in somatlas.__all__:
        assert name == "__version__" or getattr(somatlas, name).__doc__, name


def python_blocks(page: str) -> list[str]:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def test_the_tutorial_is_python() -> None:
    blocks = python_blocks("tutorial-python.md")
    assert len(blocks) >= 8
    ast.parse("\n".join(blocks))
