"""Templates filled in, and figures written: what every page of the package shares."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from matplotlib import rc_context

from somatlas.files import atomic_file, write_text
from somatlas.report.figures.drawing import laid_out
from somatlas.report.figures.figure_list import ReportFigure


def rendered(template: str, content: Mapping[str, Any]) -> str:
    """A template of the package filled in; every value is escaped."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, loader=FunctionLoader(_source)
    )
    return environment.get_template(template).render(content)


def saved(figure: ReportFigure, folder: Path | None) -> dict[str, str]:
    """Write a figure's files, and give what a page says and shows of it."""
    drawn, buffer = laid_out(figure.draw()), io.BytesIO()
    with rc_context({"svg.hashsalt": "somatlas"}):
        drawn.savefig(buffer, format="svg", metadata={"Date": None})
    if folder is not None:
        with atomic_file(folder / f"{figure.name}.svg") as temporary:
            temporary.write_bytes(buffer.getvalue())
        with atomic_file(folder / f"{figure.name}.pdf") as temporary:
            drawn.savefig(temporary, format="pdf", metadata={"CreationDate": None})
        write_text(folder / f"{figure.name}.csv", figure.csv())
    return {"caption": figure.caption, "svg": base64.b64encode(buffer.getvalue()).decode()}


def _source(name: str) -> str:
    return (files("somatlas") / "data" / name).read_text(encoding="utf-8")
