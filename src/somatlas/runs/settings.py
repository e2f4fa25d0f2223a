"""One validated configuration.

Defaults < a recipe < the run's own config.toml < a file < environment < flags. Own settings are
those that the folder was last used with, for resuming; a recipe that is not the folder's yet takes
their place (`somatlas.runs.folder.open_run`).
"""

from __future__ import annotations

import hashlib
import json
import os
import tomllib
from collections.abc import Mapping
from datetime import datetime
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from somatlas.directions.methods import METHODS, built_in_methods, method_settings
from somatlas.directions.som import SIGMA
from somatlas.errors import InputError
from somatlas.judges.registry import Judges, find_kind, judge_forms, kind_named
from somatlas.models.names import DEFAULT_DATE, DEFAULT_MODEL
from somatlas.searches.samplers import SAMPLERS, sampler_settings

Stage = Literal["represent", "layers", "map", "search", "ablate", "judge", "cost", "atlas"]
STAGES: tuple[Stage, ...] = get_args(Stage)
# Settings that may change once their stage is done: it is done again, and no other. Those of judge
# models, and kinds' own, may while --more-judges alone reads them (`Config.redone`).
JUDGE_MODELS = ("judge_template", "judge_template_sha256", "judge_labels")
REDONE: Mapping[Stage, tuple[str, ...]] = {
    "judge": ("more_judges", *JUDGE_MODELS, "judge_settings"),
    "cost": ("perplexity", "perplexity_sha256", "tasks", "task_folder", "task_limit"),
}
# Settings that may name a file, whose content decides as they do.
FILES = (
    "chat_template",
    "behaviour",
    "directions",
    "test_systems",
    "judge_template",
    "perplexity",
)

ENVIRONMENT_PREFIX = "SOMATLAS_"


def _of(stage: Stage | None, default: Any, description: str, **constraints: Any) -> Any:
    """A field that decides the outcome from `stage` on (None: decides nothing)."""
    return Field(
        default, description=description, json_schema_extra={"stage": stage}, **constraints
    )


Count = Annotated[int, Field(ge=1)]


class Config(BaseModel):
    """Everything that decides a run's result, and how it is carried out.

    Each field names the stage from which on it matters; the paper is arXiv 2511.08379.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    model: str = _of("represent", DEFAULT_MODEL, "embedded name, folder, .gguf file or hub name")
    seed: int = _of("represent", 0, "decides everything that is drawn", ge=0, lt=2**32)

    prompts: Literal["bundled", "paper"] = _of(
        "represent", "bundled", "prompt set: the bundled one, or the paper's from the hub"
    )
    positive: str | None = _of(
        "represent",
        None,
        "prompts that show the behaviour: a file or hub:NAME, or train=FILE,val=FILE,test=FILE",
    )
    negative: str | None = _of("represent", None, "prompts that do not: a file or hub:NAME")
    borderline: str | None = _of(
        "represent", None, "prompts that sound harmful and are not: a file or hub:NAME"
    )
    column: str | None = _of("represent", None, "column of the files that holds the request")
    group: tuple[str, ...] | None = _of(
        "represent",
        None,
        "columns whose equal values stay in one split, comma-separated, or none (default: topic, "
        "group, pair, id, where there)",
    )
    train_prompts: Count | None = _of(
        "represent", None, "at most this many train prompts a side (default: all)"
    )
    system: str | None = _of("represent", None, "system prompt put before every prompt")
    chat_template: str | None = _of(
        "represent",
        None,
        "in place of the model's own: chatml, one of its others by name, a Jinja template, or a "
        "file with one",
    )
    thinking: Literal["on", "off"] | None = _of(
        "represent", None, "the template's switch for reasoning (default: the template's own)"
    )
    date: str = _of(
        "represent",
        DEFAULT_DATE,
        "YYYY-MM-DD, what a chat template that prints the date is told, so that runs repeat",
    )
    behaviour: str | None = _of(
        "search",
        None,
        "file of regular expressions that mark a reply that shows the behaviour (default: refusal)",
    )
    dtype: Literal["float32", "bfloat16", "float16"] = _of(
        "represent", "float32", "precision of the model"
    )

    layers: tuple[int, ...] | None = _of(
        "represent", None, "layers to keep, as 8-24 or 3,7,12 (default: all)"
    )

    token_position: int = _of(
        "represent",
        -1,
        "token of the formatted prompt that is read, counted as Python counts (paper: --token_pos)",
    )
    reply_token: Count | None = _of(
        "represent",
        None,
        "read at this token of the model's own greedy reply instead, from 1 (paper: --generate)",
    )

    site: Literal["projection", "residual"] = _of(
        "layers",
        "projection",
        "where a norm follows a write, ablate before it, as the paper, or after it",
    )
    tied_head: Literal["keep", "paper"] = _of(
        "layers",
        "keep",
        "an output head that shares the embedding's matrix: leave it, or edit it too, as the paper",
    )
    layer: int | None = _of("layers", None, "layer to cut (default: chosen by the rule)", ge=0)
    layer_prompts: Count = _of("layers", 32, "val prompts a side for the choice of the layer")
    layer_data: Literal["own", "paper"] = _of(
        "layers",
        "own",
        "prompts of the layer rule: the run's own, or the paper's 128 + 128 and 32 + 32 from the "
        "hub, without system prompt",
    )
    refusal_tokens: tuple[int, ...] | None = _of(
        "layers", None, "ids of the tokens that open a refusal, comma-separated (default: found)"
    )
    refusal_epsilon: float = _of(
        "layers", 0.0, "added to p and 1 - p in the refusal score (paper: 1e-8)", ge=0, lt=1
    )

    method: str = _of(
        "map", "som", "what makes the directions: the map, or a method to compare it with"
    )
    method_settings: dict[str, Any] | None = _of(
        "map",
        None,
        "the method's own settings, as NAME=VALUE,NAME=VALUE, or a table of a TOML file",
        validate_default=True,
    )
    draw: int = _of(
        "map",
        0,
        "draw the map, or what else is random in the method, anew; the search stays the same",
        ge=0,
        lt=2**32,
    )
    grid: tuple[Count, Count] = _of("map", (4, 4), "ROWSxCOLUMNS of the map (paper: 4x4)")
    topology: Literal["hexagonal", "rectangular"] = _of("map", "hexagonal", "the map's grid")
    sigma: float = _of(
        "map", SIGMA, "neighbourhood width in grid steps (paper: 0.33, which orders no grid)", gt=0
    )
    learning_rate: float = _of("map", 0.01, "first learning rate (paper: 0.01)", gt=0, le=1)
    iterations: Count = _of("map", 10_000, "single-sample steps (paper: 10000)")

    trials: Count = _of("search", 16, "subsets of directions to try (paper: 128 to 512)")
    startup: Count = _of(
        "search", 8, "trials drawn at random before any is proposed (paper: a quarter of them)"
    )
    sampler: str | None = _of(
        "search",
        None,
        "what proposes the next trial (default: surrogate; parzen, as the paper, with --ordered)",
    )
    sampler_settings: dict[str, Any] | None = _of(
        "search",
        None,
        "the sampler's own settings, as --method-settings",
        validate_default=True,
    )
    k: Count = _of("search", 3, "directions ablated together (paper: 2 to 7)")
    candidates: Count = _of("search", 16, "directions to choose from, by rank (paper: 16)")
    mode: Literal["sequential", "subspace"] = _of(
        "search", "sequential", "one after another, as the paper, or the whole span"
    )
    ordered: bool = _of("search", False, "search ordered tuples, as the paper, not subsets")
    val_prompts: Count = _of("search", 32, "harmful val prompts a trial answers (paper: 41)")
    search_tokens: Count | None = _of(
        "search", None, "tokens of a trial's replies (default: as many as of a test reply)"
    )
    selection_prompts: Count = _of(
        "search", 32, "further harmful val prompts, that the winner is chosen on"
    )
    objective: Literal["asr", "asr,kl"] = _of(
        "search", "asr", "what to optimise: attack success, or that and little drift (KL)"
    )
    max_kl: float | None = _of(
        "search",
        None,
        "the winner's KL on harmless replies, in nats a token, is at most this",
        gt=0,
    )
    judge: str = _of(
        "search",
        "keyword",
        f"judge of trials and table: {judge_forms()}",
    )
    coherence: Literal["on", "off"] = _of(
        "search",
        "on",
        "on: what complies must make sense and be about the request; off: all of it counts (paper)",
    )
    round_size: Count = _of(
        "search", 4, "trials proposed from the same outcomes; as many can run at a time (paper: 1)"
    )

    directions: str | None = _of("ablate", None, "file of directions (default: the map's)")
    ids: tuple[int, ...] | None = _of(
        "ablate", None, "ranks to ablate, comma-separated (default: the search's best)"
    )
    controls: tuple[str, ...] = _of(
        "ablate",
        (),
        "further conditions: as many directions of each of these methods, comma-separated",
    )
    test_prompts: Count = _of("ablate", 64, "at most this many test prompts of each kind")
    test_tokens: Count = _of("search", 64, "tokens of a test reply; refusals come late")

    samples: Count = _of("ablate", 1, "replies to each test prompt; more need --temperature")
    temperature: float = _of("ablate", 0.0, "of the test replies; 0 is greedy", ge=0)
    top_p: float = _of("ablate", 1.0, "mass of likeliest tokens to draw from", gt=0, le=1)
    test_systems: str | None = _of(
        "ablate", None, "file of system prompts, one a line: every test prompt is put under each"
    )
    reply_models: dict[str, str] | None = _of(
        "ablate",
        None,
        "models at --endpoint-url that make test replies instead, as base=NAME,sd=NAME,md=NAME",
    )

    more_judges: tuple[str, ...] = _of(
        "judge", (), "further judges of the test replies, comma-separated"
    )
    judge_template: str | None = _of(
        "search", None, "file with {prompt} and {reply}: what judge models read"
    )
    judge_labels: dict[str, Literal["complied", "refused", "incoherent", "off topic"]] | None = _of(
        "search", None, "what a classifier's labels mean, as NAME=refused,NAME=complied"
    )
    judge_settings: dict[str, dict[str, Any]] | None = _of(
        "search",
        None,
        "settings of another package's judges, as KIND.SETTING=VALUE,KIND.SETTING=VALUE",
    )

    perplexity: str | None = _of("cost", None, "text file whose perplexity is measured")
    tasks: tuple[str, ...] = _of(
        "cost", (), "tasks of lm-evaluation-harness (extra: tasks), comma-separated"
    )
    task_folder: str | None = _of("cost", None, "folder of further task definitions")
    task_limit: Count | None = _of("cost", None, "at most this many examples of a task")

    recipe: str | None = _of(None, None, "settings of a published result: a name or a TOML file")
    name: str = _of(None, "default", "the run's folder below the model's")
    out: Path = _of(None, Path("runs"), "folder of all runs")
    device: str = _of(None, "cpu", "cpu, cuda, cuda:1, mps, or auto: spread over all")
    storage: str | None = _of(
        None,
        None,
        "database URL of the search, shared by many machines (default: in the run folder)",
    )
    lanes: Count = _of(None, 4, "trials of a round evaluated side by side in one batch")
    workers: Count = _of(None, 1, "processes that share represent and search, one per GPU")
    part: tuple[int, Count] | None = _of(
        None, None, "I/N: only worker I's share of represent or search, of N (0 to N - 1)"
    )
    batch_size: Count = _of(
        None,
        128,
        "prompts in one forward pass, for each lane",
    )
    endpoint_url: str | None = _of(
        None, None, "OpenAI-compatible server of endpoint judges and --reply-models, to /v1"
    )
    endpoint_timeout: float = _of(None, 60.0, "seconds of one try", gt=0)
    endpoint_concurrency: Count = _of(None, 8, "requests at a time")
    max_missing: float = _of(
        None, 0.02, "share of replies that a judge may leave without a verdict", ge=0, le=1
    )
    trust_remote_code: bool = _of(None, False, "run code that comes with the model")

    @field_validator("grid", mode="before")
    @classmethod
    def _parse_grid(cls, value: Any) -> Any:
        return value.lower().split("x") if isinstance(value, str) else value

    @field_validator("layers", mode="before")
    @classmethod
    def _parse_layers(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        layers: list[int] = []
        for item in value.split(","):
            first, _, last = item.partition("-")
            if not (first.isdigit() and (last or first).isdigit()):
                raise ValueError("must be like 8-24 or 3,7,12")
            layers += range(int(first), int(last or first) + 1)
        return layers

    @field_validator("layers")
    @classmethod
    def _ordered_layers(cls, value: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if value is not None and (not value or min(value) < 0):
            raise ValueError("must name at least one layer, from 0 on")
        return None if value is None else tuple(sorted(set(value)))

    @field_validator("part", mode="before")
    @classmethod
    def _parse_part(cls, value: Any) -> Any:
        return value.split("/") if isinstance(value, str) else value

    @field_validator("part")
    @classmethod
    def _part_of_whole(cls, value: tuple[int, int] | None) -> tuple[int, int] | None:
        if value is not None and not 0 <= value[0] < value[1]:
            raise ValueError("must be I/N with I from 0 to N - 1")
        return value

    @field_validator(
        "judge_labels", "reply_models", "method_settings", "sampler_settings", mode="before"
    )
    @classmethod
    def _parse_pairs(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        pairs = [item.partition("=") for item in value.split(",") if item]
        if not pairs or not all(name and sign and meaning for name, sign, meaning in pairs):
            raise ValueError("must be like NAME=VALUE,NAME=VALUE")
        return {name.strip(): meaning.strip() for name, _, meaning in pairs}

    @field_validator("method")
    @classmethod
    def _known_method(cls, value: str) -> str:
        METHODS.check(value)
        return value

    @field_validator("controls")
    @classmethod
    def _known_controls(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            METHODS.check(name)
            if name == "sd":
                raise ValueError("must not name 'sd', which is a condition already")
        if len(set(value)) < len(value):
            raise ValueError("must not name a method twice")
        return value

    @field_validator("sampler")
    @classmethod
    def _known_sampler(cls, value: str | None) -> str | None:
        if value is not None:
            SAMPLERS.check(value)
        return value

    @field_validator("method_settings", "sampler_settings")
    @classmethod
    def _own_settings(
        cls, value: dict[str, Any] | None, info: ValidationInfo
    ) -> dict[str, Any] | None:
        """Whole, with defaults, as all settings are recorded; None where there are none."""
        chooser = str(info.field_name).removesuffix("_settings")
        if chooser not in info.data:  # wrong itself, and said so
            return value
        name = info.data[chooser]
        if name is None:
            if value:
                raise ValueError(f"has no meaning without --{chooser}, whose settings they are")
            return None
        whole = method_settings if chooser == "method" else sampler_settings
        return whole(name, value or {}) or None

    @field_validator("reply_models")
    @classmethod
    def _known_conditions(cls, value: dict[str, str] | None) -> dict[str, str] | None:
        if value is not None and not set(value) <= {"base", "sd", "md"}:
            raise ValueError("must name conditions among base, sd and md")
        return value

    @field_validator("judge", "more_judges")
    @classmethod
    def _known_judges(cls, value: Any) -> Any:
        for spec in (value,) if isinstance(value, str) else value:
            find_kind(spec)
        return value

    @field_validator("judge_settings", mode="before")
    @classmethod
    def _parse_judge_settings(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        parsed: dict[str, dict[str, Any]] = {}
        for item in filter(None, value.split(",")):
            place, sign, text = item.partition("=")
            kind, dot, name = place.strip().partition(".")
            if not (sign and dot and kind and name):
                raise ValueError("must be like KIND.SETTING=VALUE,KIND.SETTING=VALUE")
            try:
                parsed.setdefault(kind, {})[name] = json.loads(text)
            except json.JSONDecodeError:  # not a number, true or false
                parsed.setdefault(kind, {})[name] = text.strip()
        return parsed

    @field_validator("judge_settings")
    @classmethod
    def _known_judge_settings(cls, value: Any) -> Any:
        for name in value or ():
            kind_named(name)
        return value

    @field_validator(
        "ids", "controls", "refusal_tokens", "more_judges", "tasks", "group", mode="before"
    )
    @classmethod
    def _parse_list(cls, value: Any) -> Any:
        return [v for v in value.split(",") if v] if isinstance(value, str) else value

    @field_validator("date")
    @classmethod
    def _day(cls, value: str) -> str:
        try:
            return datetime.strptime(value, "%Y-%m-%d").date().isoformat()
        except ValueError:
            raise ValueError("must be a day as YYYY-MM-DD") from None

    @field_validator("name")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        if not value or value in (".", "..") or set(value) & set('/\\:*?"<>|'):
            raise ValueError("must be a plain folder name")
        return value

    @model_validator(mode="after")
    def _enough_candidates(self) -> Self:
        method = METHODS.get(self.method)
        if self.k > 1 and method.makes_one and self.ids is None:
            raise ValueError(
                f"method {self.method!r} makes one direction, of which k = {self.k} cannot be "
                "taken: lower --k to 1"
            )
        neurons = self.grid[0] * self.grid[1]
        available = min(self.candidates, neurons) if method.makes_map else self.candidates
        if self.k > available:
            raise ValueError(
                f"k = {self.k} directions cannot be taken from {available} candidates: lower --k, "
                "or raise --candidates and --grid"
            )
        return self

    @model_validator(mode="after")
    def _something_to_draw(self) -> Self:
        if self.draw and not METHODS.get(self.method).is_drawn:
            drawn = [name for name, cls in built_in_methods().items() if cls.is_drawn]
            raise ValueError(
                f"method {self.method!r} draws nothing, so draw = {self.draw} would be the same "
                f"directions: leave out --draw, or choose a method among {', '.join(drawn)}"
            )
        return self

    @model_validator(mode="after")
    def _one_token_is_read(self) -> Self:
        if self.reply_token is not None and self.token_position != -1:
            raise ValueError(
                f"token_position = {self.token_position} is of the prompt, reply_token = "
                f"{self.reply_token} of the reply: give one of them"
            )
        return self

    @model_validator(mode="after")
    def _something_is_proposed(self) -> Self:
        if (
            self.startup >= self.trials
            and self.startup > type(self).model_fields["startup"].default
        ):
            raise ValueError(
                f"all {self.trials} trials would be random with startup = {self.startup}: give "
                f"--startup {max(1, self.trials // 4)}, a quarter of them, or more --trials"
            )
        return self

    @model_validator(mode="after")
    def _what_belongs_together(self) -> Self:
        if self.samples > 1 and self.temperature == 0:
            raise ValueError(
                f"samples = {self.samples} greedy replies would be equal: give --temperature"
            )
        if self.directions is not None and self.ids is None:
            raise ValueError(
                f"the search ranked other directions than those of {self.directions}: name them "
                "with --ids"
            )
        if self.reply_models and self.endpoint_url is None:
            raise ValueError("an endpoint needs its address: give --endpoint-url")
        return self

    @model_validator(mode="after")
    def _judges_are_told_enough(self) -> Self:
        judges = self.judges()
        for spec in (self.judge, *self.more_judges):
            judges.asked(spec)
        return self

    def judges(self, cache: Path | None = None) -> Judges:
        """The judges, told what the settings say. cache : keeps what a server answered."""
        return Judges(dict(self), self.judge_settings, cache)

    @classmethod
    def stage_of(cls, field: str) -> Stage | None:
        """The stage from which on a field decides the outcome, or None."""
        extra = cls.model_fields[field].json_schema_extra
        assert isinstance(extra, dict)
        return extra["stage"]  # type: ignore[return-value]

    @classmethod
    def merged(cls, *layers: Mapping[str, Any]) -> Self:
        """Validate what the layers say together; the later one wins.

        Raises InputError naming the first wrong setting, its value and what it must be.
        """
        values: dict[str, Any] = {}
        for layer in layers:
            values.update(layer)
        try:
            return cls(**values)
        except ValidationError as error:
            first = error.errors()[0]
            reason = first["msg"].removeprefix("Value error, ")
            if not first["loc"]:
                raise InputError(reason) from None
            name = str(first["loc"][0])
            if first["type"] == "extra_forbidden":
                raise InputError(f"there is no setting {name!r}: see somatlas run --help") from None
            raise InputError(
                f"setting {name!r} cannot be {values.get(name)!r}: {reason[0].lower()}{reason[1:]}"
            ) from None

    @property
    def map_seed(self) -> int:
        """The seed of what the map stage draws: draw d is that of seed + d, all else unchanged."""
        return (self.seed + self.draw) % 2**32

    @property
    def redone(self) -> set[str]:
        """The settings that may change once their stage is done."""
        names = {name for some in REDONE.values() for name in some}
        kind = find_kind(self.judge)
        if not set(JUDGE_MODELS).isdisjoint(kind.shared.values()):
            names -= set(JUDGE_MODELS)
        return names - {"judge_settings"} if kind.own else names

    def settings_until(self, stage: Stage) -> dict[str, Any]:
        """What decides the output of a stage, as plain JSON values: fields, and sha256 of files."""
        until = STAGES[: STAGES.index(stage) + 1]
        values = self.model_dump(mode="json")
        fields = {f: values[f] for f in type(self).model_fields if self.stage_of(f) in until}
        paths = {f: Path(fields[f]) for f in FILES if fields.get(f) and "{{" not in fields[f]}
        return fields | {
            f"{name}_sha256": _sha256(path) for name, path in paths.items() if path.is_file()
        }


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error})") from None


def read_config_file(path: Path) -> dict[str, Any]:
    """The settings of a TOML file; a table [versions] in it is a record and no setting."""
    content = read_toml(path, "config file")
    content.pop("versions", None)
    return content


def read_run_settings(folder: Path) -> dict[str, Any]:
    """The settings of a run's folder; raises InputError where it is none."""
    path = folder / "config.toml"
    if not path.is_file():
        raise InputError(f"{folder} is no run folder: it has no config.toml")
    return read_config_file(path)


def read_toml(path: Path | Traversable, what: str) -> dict[str, Any]:
    """A TOML file as a dictionary; raises InputError, saying `what` it is, where that fails."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise InputError(f"{what} {path} does not exist") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{what} {path} cannot be read ({error})") from None


def from_environment() -> dict[str, str]:
    """Settings from variables such as SOMATLAS_BATCH_SIZE."""
    names = {ENVIRONMENT_PREFIX + name.upper(): name for name in Config.model_fields}
    return {names[key]: value for key, value in os.environ.items() if key in names and value}
