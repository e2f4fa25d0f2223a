"""The notebook of the docs runs from its first cell to its last."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[1] / "docs" / "map_of_digits.ipynb"


@pytest.mark.slow
def test_the_notebook_runs_and_finds_the_digits() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    text = "".join(o.get("text", "") for o in outputs)
    bits = float(text.split(" bits of")[0].split()[-1])
    assert bits > 1.5
    assert any("image/png" in o.get("data", {}) for o in outputs)
