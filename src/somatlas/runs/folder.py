"""A run's folder: its configuration, which stages are done, and resuming.

    runs/<model>/<name>/
      config.toml      every setting, and the versions that ran
      stages.json      per stage: the settings that decided its output, and once done its seconds
      ...              each stage's own files (somatlas.runs.stages)

A stage is done when stages.json has its seconds, written last. One that was interrupted runs again;
the search goes on from its finished trials, ablate from its finished conditions.
"""

from __future__ import annotations

import platform
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import tomli_w

from somatlas.errors import InputError
from somatlas.files import write_json, write_text
from somatlas.fleet import Fleet, Work
from somatlas.judges import CoherenceCheck
from somatlas.judges.coherence import check_from_record
from somatlas.judges.registry import Judges
from somatlas.measures.layer_choice import LayerChoice
from somatlas.models.checkpoint import adapter_base
from somatlas.models.digest import weights_digest
from somatlas.models.language_model import LanguageModel
from somatlas.models.load import folder_name, load_model, precision_of
from somatlas.models.memory import give_back
from somatlas.progress import note
from somatlas.prompts import PromptSet, Split
from somatlas.prompts.hub_sets import layer_rule_prompts
from somatlas.prompts.sources import Sources, named_prompts
from somatlas.runs.folder_kind import check_folder
from somatlas.runs.places import bring, described, home_of, local_root, run_place
from somatlas.runs.recipes import load_recipe
from somatlas.runs.setting_sources import read_config_file, read_run_settings
from somatlas.runs.settings import (
    REDONE,
    STAGES,
    Config,
    Stage,
)
from somatlas.runs.stages_file import read_stages
from somatlas.runs.workforce import device_of, leave, make_fleet, on_ray

_RECORDED = ("somatlas", "torch", "transformers", "optuna", "numpy")


class Run:
    """One run: where it lives, what it was told, and, on first use, its prompts and its model."""

    def __init__(
        self, config: Config, folder: Path | None = None, *, keeps_files: bool = True
    ) -> None:
        self.config = config
        self.folder = folder or run_folder(config)
        self.keeps_files = keeps_files  # else it is a worker's, whose driver does
        self.check_record: Mapping[str, Any] | None = None  # what `answer_check` is made of
        self.answer_check: CoherenceCheck | None = None

    def settle(self) -> None:
        """Decide the precision that was left open, which decides the outcome, and say it."""
        if self.config.dtype == "auto":
            c = self.config
            found = precision_of(c.model, device_of(c), c.trust_remote_code)
            note(f"dtype {found.dtype}: {found.reason}")
            self.config = c.model_copy(update={"dtype": found.dtype})

    @cached_property
    def fleet(self) -> Fleet[Run]:
        """Who carries out the stages' work, and holds the model: this process, or workers."""
        fleet = make_fleet(self)
        if on_ray(self.config):  # else the model is checked when it is loaded
            self.check_weights(fleet.prepared(weights_work, None).one(None))
        return fleet

    def dismiss(self) -> None:
        """Let the fleet go; the next stage that needs one starts it anew."""
        if "fleet" in vars(self):
            vars(self).pop("fleet").close()
        elif on_ray(self.config):
            leave()

    @cached_property
    def lm(self) -> LanguageModel:
        """The model, loaded once."""
        self.settle()
        lm = load_model(self.config.model, **model_arguments(self.config))
        for odd in lm.notes:
            note(f"{lm.name}: {odd}")
        self.check_model(lm)
        return lm

    @cached_property
    def judges(self) -> Judges:
        """The judges, each loaded once: the search's stays for the test replies."""
        kept = self.path("judge_answers.jsonl") if self.keeps_files else None
        return self.config.judges(kept)

    def use_check(self, record: Mapping[str, Any] | None) -> None:
        """Have the check of answers that a record tells of (`somatlas.runs.answer_check`), None for
        none."""
        if record is None:
            self.answer_check = None
        elif self.answer_check is None or self.answer_check.record != record:
            self.answer_check = check_from_record(self.lm, record)

    @cached_property
    def shape(self) -> Shape:
        """The model's, whoever holds it."""
        return self.fleet.prepared(shape_work, None).one(None)

    @cached_property
    def all_prompts(self) -> PromptSet:
        """The prompt set as it was read, once, without limits."""
        return named_prompts(prompt_sources(self.config))

    @cached_property
    def prompts(self) -> PromptSet:
        """The prompt set, read once, within the limits of the configuration."""
        c = self.config
        limits: dict[Split, int] = {"test": c.test_prompts}
        if c.train_prompts is not None:
            limits["train"] = c.train_prompts
        return self.all_prompts.limited(limits)

    @cached_property
    def rule_prompts(self) -> PromptSet:
        """The prompts that the paper's layer rule has of its own (`Config.layer_data`)."""
        return layer_rule_prompts()

    def path(self, name: str) -> Path:
        """A file of the run."""
        return self.folder / name

    @property
    def stages(self) -> dict[str, Any]:
        """The stages that were done or begun, as stages.json has them."""
        return read_stages(self.folder)

    def is_done(self, stage: Stage) -> bool:
        """Whether a stage's output is whole."""
        return "seconds" in self.stages.get(stage, {})

    def begin(self, stage: Stage, **facts: Any) -> None:
        """Record the settings of a stage before it writes anything that it would resume from.

        facts : what else its files depend on.
        """
        self._record(stage, {"settings": self.settings(stage), **facts})

    def take_over(self, stage: Stage, source: Run, seconds: float) -> None:
        """Record a stage as done whose files another run's are, in so many seconds.

        What that run recorded of the stage beside its settings and time stays with it; whose files
        they are is `taken_from`.
        """
        own = {"settings": self.settings(stage), "seconds": round(seconds, 2)}
        whose = {"taken_from": source.folder.name, **source.stages[stage]}
        self._record(stage, {**whose, **own})

    def study_settings(self) -> dict[str, Any]:
        """What decides a search's trials: what goes on with a study must agree on it."""
        free = self.config.redone | {"trials"}
        return {n: value for n, value in self.settings("search").items() if n not in free}

    def command(self, name: str) -> str:
        """The command line that does so much of this run, from the folder's own settings."""
        moved = run_folder(self.config).resolve() != self.folder.resolve()
        out = home_of(self.folder) if moved else self.config.out
        words = ["somatlas", name, self.config.model, "--name", self.folder.name]
        if out != Config.model_fields["out"].default:
            words += ["--out", str(out)]
        return shlex.join(words)

    def needs(self, stage: Stage) -> None:
        """Raise InputError where an earlier stage that is needed has not been run."""
        if not self.is_done(stage):
            raise InputError(
                f"{described(self.folder)} has no finished stage {stage!r}: run "
                f"`{self.command(stage)}` first"
            )

    def carry_out(self, stage: Stage, work: Callable[[Run], None]) -> bool:
        """Do the work of a stage unless it is done; True if it was done now.

        Raises InputError where the folder holds a stage that other settings decided. One that is
        done again and fails stays as it was.
        """
        if not self.is_asked_for(stage):
            return False
        again = self.is_done(stage)  # with other of the settings that may change
        start = time.monotonic()
        work(self)
        give_back()
        seconds = round(time.monotonic() - start, 2)
        own = {"settings": self.settings(stage)}
        begun = own if again else self.stages.get(stage, own)
        self._record(stage, {**begun, "seconds": seconds})
        return True

    def is_asked_for(self, stage: Stage) -> bool:
        """Whether a stage is not done, or done otherwise than is asked for now.

        A finished search that is asked for more trials is opened again. Raises InputError where
        the folder holds a stage that other settings decided.
        """
        asked = self.would_do(stage)
        if stage == "search" and self._search_grows():
            self._reopen()
        return asked

    def would_do(self, stage: Stage) -> bool:
        """The same, and nothing is opened again: what comes after the search counts as well."""
        self.check_settings()
        grows = stage in STAGES[STAGES.index("search") :] and self._search_grows()
        return grows or not self.is_done(stage) or self._asks_again(stage)

    def _search_grows(self) -> bool:
        """Whether a finished search is asked for more trials."""
        settings = self.stages.get("search", {}).get("settings", {})
        return "trials" in settings and self.config.trials > settings["trials"]

    def _reopen(self) -> None:
        """Search, and what depends on it, is to be done again; their files stay to go on from."""
        stages = self.stages
        for stage in STAGES[STAGES.index("search") :]:
            if stage in stages:
                stages[stage].pop("seconds", None)
                stages[stage]["settings"]["trials"] = self.config.trials
        write_json(self.path("stages.json"), stages)

    def _asks_again(self, stage: Stage) -> bool:
        """Whether a finished stage was made with other of the settings that may change."""
        was, now = self.stages.get(stage, {}).get("settings", {}), self.settings(stage)
        names = [name for name in REDONE.get(stage, ()) if name in was and name in now]
        return any(was[name] != now[name] for name in names)

    def _record(self, stage: Stage, record: dict[str, Any]) -> None:
        self.record_config()
        write_json(self.path("stages.json"), {**self.stages, stage: record})

    def settings(self, stage: Stage) -> dict[str, Any]:
        """What decides a stage's output: settings, and the prompts' sha256."""
        self.settle()
        return {
            **self.config.settings_until(stage),
            "prompts_sha256": self.all_prompts.sha256(),
        }

    def check_settings(self) -> None:
        """Raise InputError where the folder holds a stage that other settings decided."""
        free = self.config.redone
        for stage in STAGES:
            if stage not in self.stages:
                continue
            now = self.settings(stage)
            for name, was in self.stages[stage]["settings"].items():
                if name in free or name not in now:  # a file that is gone cannot differ
                    continue
                grown = name == "trials" and self.config.trials > was
                if now.get(name) != was and not grown:
                    raise InputError(
                        f"{described(self.folder)} was made with {name} = {was!r}, not "
                        f"{now.get(name)!r}: give another --name, or remove that folder"
                    )

    def model_record(self) -> dict[str, Any]:
        """What the model's weights are, and what is odd about them, for stages.json."""
        return {
            "class": type(self.lm.model).__name__,
            "weights": self.weights,
            "unread": list(self.lm.unread),
            "notes": list(self.lm.notes),
        }

    @property
    def weights(self) -> str | None:
        """A digest of what a checkpoint's files hold; None where the weights are computed from
        several, and may differ in their last bits from one machine to the next."""
        return self._weights_of(self.lm)

    def _weights_of(self, lm: LanguageModel) -> str | None:
        stored = lm.folder is not None and adapter_base(self.config.model) is None
        return weights_digest(lm.model) if stored else None

    def check_model(self, lm: LanguageModel) -> None:
        """Raise InputError where the model's weights have changed under its name."""
        if self._recorded_weights() is not None:
            self.check_weights(self._weights_of(lm))

    def _recorded_weights(self) -> str | None:
        found: str | None = self.stages.get("represent", {}).get("model", {}).get("weights")
        return found

    def check_weights(self, weights: str | None) -> None:
        """Raise InputError where these are not the weights that the run was begun with."""
        if self._recorded_weights() not in (None, weights):
            raise InputError(
                f"{described(self.folder)} was made with other weights than {self.config.model} "
                "has now: give another --name, or remove that folder"
            )

    def record_config(self) -> None:
        """Write config.toml."""
        self.settle()
        # A URL may hold a password; where a run is carried out is each command's own.
        unkept = {"storage", "ray", "workers", "gpus_per_worker"}
        values = self.config.model_dump(mode="json", exclude_none=True, exclude=unkept)
        versions = {name: version(name) for name in _RECORDED}
        record = {**values, "versions": {**versions, "python": platform.python_version()}}
        write_text(self.path("config.toml"), tomli_w.dumps(record))


@dataclass(frozen=True)
class Shape:
    """n_layers : L, the number of decoder blocks. d_model : d, the length of a vector."""

    n_layers: int
    d_model: int


def weights_work(run: Run, _shared: None) -> Work[None, str | None]:
    """The digest of the model's weights."""
    return lambda items, _advance: [run.weights for _ in items]


def shape_work(run: Run, _shared: None) -> Work[None, Shape]:
    """The shape of the model."""
    return lambda items, _advance: [Shape(run.lm.n_layers, run.lm.d_model) for _ in items]


def prompt_sources(config: Config) -> Sources:
    """Where a configuration has its prompts from."""
    return Sources(**{field.name: getattr(config, field.name) for field in fields(Sources)})


def model_arguments(config: Config) -> dict[str, Any]:
    """What `load_model` is told beside the name: runs alike in both may share the model."""
    return {
        "dtype": config.dtype,
        "device": config.device,
        "system": config.system,
        "chat_template": config.chat_template,
        "site": config.site,
        "edit_head": config.tied_head == "paper",
        "thinking": None if config.thinking is None else config.thinking == "on",
        "date": config.date,
        "trust_remote_code": config.trust_remote_code,
    }


def run_folder(config: Config) -> Path:
    """out/<model>/<name>; of a URL its local copy's."""
    return local_root(config.out) / folder_name(config.model) / config.name


def open_run(flags: dict[str, Any], file: Path | None, environment: dict[str, str]) -> Run:
    """The run that the settings name; what they leave out, its own config.toml and a recipe say.

    A recipe that the folder does not have yet stands in place of its config.toml: what an earlier
    command left there would else be credited with what was published for the recipe. Stages that
    were finished otherwise are then refused like any other (`Run.check_settings`).
    """
    given = [read_config_file(file) if file else {}, environment, flags]
    recipe = next((layer["recipe"] for layer in reversed(given) if layer.get("recipe")), None)
    base = load_recipe(recipe).settings if recipe else {}
    place = {"model", "name", "out"}
    places = [{n: value for n, value in layer.items() if n in place} for layer in (base, *given)]
    where = Config.merged(*places)
    folder = run_folder(where)
    bring(where.out, folder)
    check_folder(folder, "run")
    path = folder / "config.toml"
    own = read_config_file(path) if path.exists() else {}
    own.pop("out", None)  # a folder that was moved is where it was found
    if recipe and own.get("recipe") != recipe:
        own = {}
    if own.get("dtype"):  # auto decided it once
        given = [{n: v for n, v in one.items() if (n, v) != ("dtype", "auto")} for one in given]
    return Run(Config.merged(base, own, *given))


def run_at(place: str | Path, *, whole: bool = False) -> Run:
    """The run in a folder or at a URL; raises InputError where there is none.

    whole : of a URL, fetch the representations too.
    """
    folder = run_place(place, whole=whole)
    check_folder(folder, "run")
    return Run(Config.merged(read_run_settings(folder)), folder)


def chosen_layer(run: Run) -> int:
    """The layer the user gave, else the one that the layers stage chose."""
    if run.config.layer is not None:
        return run.config.layer
    run.needs("layers")
    return LayerChoice.read(run.folder).layer


def ranks_within(ids: Sequence[int], available: int) -> list[int]:
    """ids as a list; raises InputError where one is no rank of the directions or occurs twice."""
    for i in ids:
        if not 0 <= i < available:
            raise InputError(f"there is no direction {i}: ranks go from 0 to {available - 1}")
    if len(set(ids)) < len(ids):
        raise InputError(f"direction ids {','.join(map(str, ids))} name one twice")
    return list(ids)
