"""What one run has loaded and the next one may use: for commands over several runs."""

from __future__ import annotations

from somatlas.judges.registry import find_kind
from somatlas.models.language_model import LanguageModel
from somatlas.runs.folder import Run, model_arguments
from somatlas.runs.settings import Config
from somatlas.runs.workforce import on_ray, pass_on

# No judge reads the settings of these stages, nor these of the search's.
_BEFORE_JUDGES = ("represent", "layers", "map")
_UNJUDGED = {"name", "k", "candidates", "mode", "trials"}


class Resident:
    """The model and the judges that the last run loaded, for the next one where it may have them;
    or the workers that hold them.

    One model is held at a time: runs that load it differently let go of it first.
    """

    def __init__(self) -> None:
        self._model: LanguageModel | None = None
        self._run: Run | None = None

    def lend(self, run: Run) -> None:
        """Give a run what it would load itself, if that is here."""
        last = self._run
        if last is None:
            return
        run.settle()
        if on_ray(run.config) and "fleet" in vars(last):
            run.fleet = vars(last).pop("fleet")
            pass_on(run.fleet, run)
        if self._model is not None:
            alike = last.config.model == run.config.model
            if alike and model_arguments(last.config) == model_arguments(run.config):
                run.check_model(self._model)
                run.lm = self._model
            else:
                self._model = None
        if "judges" in vars(last) and _judged_alike(last.config, run.config):
            run.judges = last.judges

    def keep(self, run: Run) -> None:
        """Take what a run has loaded, and let it go there."""
        self._model = vars(run).pop("lm", self._model)
        run.answer_check = None  # which holds the model
        if self._run is not None and self._run is not run:
            vars(self._run).pop("judges", None)
        self._run = run

    def dismiss(self) -> None:
        """Let the last run's fleet go."""
        if self._run is not None:
            self._run.dismiss()


def _judged_alike(first: Config, second: Config) -> bool:
    """Whether two runs' judges are the same; some keep their answers in the run's folder."""
    specs = (first.judge, *first.more_judges, second.judge, *second.more_judges)
    if any(find_kind(spec).keeps_answers for spec in specs):
        return False
    return all(
        getattr(first, name) == getattr(second, name)
        for name in Config.model_fields
        if name not in _UNJUDGED and Config.stage_of(name) not in _BEFORE_JUDGES
    )
