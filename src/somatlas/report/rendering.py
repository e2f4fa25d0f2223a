"""Templates filled in, and figures written: what every page of the package shares."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined

from somatlas.files import write_text
from somatlas.report.figures.drawing import laid_out, save_pdf, svg
from somatlas.report.figures.figure_list import ReportFigure


def rendered(template: str, content: Mapping[str, Any]) -> str:
    """A template of the package filled in; every value is escaped."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, loader=FunctionLoader(_source)
    )
    return environment.get_template(template).render(content)


def saved(figure: ReportFigure, folder: Path | None) -> dict[str, str]:
    """Write a figure's files, and give what a page says and shows of it."""
    drawn = laid_out(figure.draw())
    vector = svg(drawn)
    if folder is not None:
        write_text(folder / f"{figure.name}.svg", vector)
        save_pdf(drawn, folder / f"{figure.name}.pdf")
        write_text(folder / f"{figure.name}.csv", figure.csv())
    return {"caption": figure.caption, "svg": base64.b64encode(vector.encode()).decode()}


def _source(name: str) -> str:
    return (files("somatlas") / "data" / name).read_text(encoding="utf-8")
