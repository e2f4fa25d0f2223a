"""Figures and tables of a run.

The figures draw plain arrays and import no language-model library; `run_figures` takes the arrays
from a run's folder, and is imported when it is used.
"""

from typing import TYPE_CHECKING, Any

from somatlas.report.figures.atlas_figures import (
    front_figure,
    layers_figure,
    stability_figure,
    steps_figure,
)
from somatlas.report.figures.direction_figures import cosine_figure, plane_figure
from somatlas.report.figures.drawing import save_figure
from somatlas.report.figures.map_figures import map_figure
from somatlas.report.figures.space_figures import grid_figure, scaling_figure

if TYPE_CHECKING:
    from somatlas.report.figures.figure_list import ReportFigure, run_figures

__all__ = [
    "ReportFigure",
    "cosine_figure",
    "front_figure",
    "grid_figure",
    "layers_figure",
    "map_figure",
    "plane_figure",
    "run_figures",
    "save_figure",
    "scaling_figure",
    "stability_figure",
    "steps_figure",
]


def __getattr__(name: str) -> Any:
    if name not in ("ReportFigure", "run_figures"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from somatlas.report.figures import figure_list

    return getattr(figure_list, name)
