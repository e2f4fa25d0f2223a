"""somatlas: how a language model encodes refusal, as several related directions.

Names are imported when they are first used: `SOM`, `DirectionSet` and `Projection` work on any
vectors and bring no language-model library.
"""

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from somatlas.ablation import Projection
    from somatlas.audits.audit import audit
    from somatlas.directions.direction_set import DirectionSet
    from somatlas.directions.drawn import (
        CovarianceDirections,
        PartitionDirections,
        PointDirections,
        RandomDirections,
        ShiftedDirections,
    )
    from somatlas.directions.leace import BinaryLEACEDirection, LEACEDirections
    from somatlas.directions.learned import (
        KMeansDirections,
        LayerDirections,
        PCADirections,
        SingleDirection,
    )
    from somatlas.directions.som import SOM
    from somatlas.directions.som_directions import SOMDirections
    from somatlas.errors import InputError
    from somatlas.evaluation.evaluate import evaluate
    from somatlas.judges.coherent import Coherent
    from somatlas.judges.keyword import KeywordJudge
    from somatlas.judges.verdict import Judgement, Verdict
    from somatlas.measures.layer_choice import choose_layer
    from somatlas.models.load import load_model
    from somatlas.prompts.bundled import bundled_prompts as load_prompts
    from somatlas.prompts.prompt_set import Prompt, PromptSet
    from somatlas.report.atlas_report import atlas
    from somatlas.representations.sides import Representations, represent
    from somatlas.runs.opened import open_run
    from somatlas.searches.search import search

__version__ = "0.1.0"

# OpenMP's threads spin while they wait for one another; where other programs keep a core busy, they
# wait for a thread that has no core, and a run takes several times as long (docs/performance.md).
# It is read when torch is loaded: the one of torch's library on Linux, milliseconds elsewhere.
_SPIN = {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "1"}
if "torch" not in sys.modules and not os.environ.keys() & {*_SPIN, "OMP_WAIT_POLICY"}:
    os.environ.update(_SPIN)

# Public name -> the module that has it, and its name there where that is another.
_PLACES = {
    "Coherent": "judges.coherent",
    "CovarianceDirections": "directions.drawn",
    "DirectionSet": "directions.direction_set",
    "InputError": "errors",
    "Judgement": "judges.verdict",
    "KMeansDirections": "directions.learned",
    "KeywordJudge": "judges.keyword",
    "BinaryLEACEDirection": "directions.leace",
    "LEACEDirections": "directions.leace",
    "LayerDirections": "directions.learned",
    "PartitionDirections": "directions.drawn",
    "PointDirections": "directions.drawn",
    "PCADirections": "directions.learned",
    "Projection": "ablation",
    "Prompt": "prompts.prompt_set",
    "PromptSet": "prompts.prompt_set",
    "RandomDirections": "directions.drawn",
    "Representations": "representations.sides",
    "SOM": "directions.som",
    "SOMDirections": "directions.som_directions",
    "ShiftedDirections": "directions.drawn",
    "SingleDirection": "directions.learned",
    "Verdict": "judges.verdict",
    "atlas": "report.atlas_report",
    "audit": "audits.audit",
    "choose_layer": "measures.layer_choice",
    "evaluate": "evaluation.evaluate",
    "load_model": "models.load",
    "load_prompts": "prompts.bundled:bundled_prompts",
    "open_run": "runs.opened",
    "represent": "representations.sides",
    "search": "searches.search",
}

__all__ = [
    "SOM",
    "BinaryLEACEDirection",
    "Coherent",
    "CovarianceDirections",
    "DirectionSet",
    "InputError",
    "Judgement",
    "KMeansDirections",
    "KeywordJudge",
    "LEACEDirections",
    "LayerDirections",
    "PCADirections",
    "PartitionDirections",
    "PointDirections",
    "Projection",
    "Prompt",
    "PromptSet",
    "RandomDirections",
    "Representations",
    "SOMDirections",
    "ShiftedDirections",
    "SingleDirection",
    "Verdict",
    "__version__",
    "atlas",
    "audit",
    "choose_layer",
    "evaluate",
    "load_model",
    "load_prompts",
    "open_run",
    "represent",
    "search",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, own = _PLACES[name].partition(":")
    value = globals()[name] = getattr(import_module(f"{__name__}.{module}"), own or name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
