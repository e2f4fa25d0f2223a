"""One validated configuration, of the settings that `somatlas.runs.fields` declares.

Defaults < a recipe < the run's own config.toml < a file < environment < flags. Own settings are
those that the folder was last used with, for resuming; a recipe that is not the folder's yet takes
their place (`somatlas.runs.folder.open_run`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    create_model,
    field_validator,
    model_validator,
)

from somatlas.arguments import check_no_boolean, check_unicode
from somatlas.directions.methods import METHODS, built_in_methods, method_settings
from somatlas.errors import InputError, without_password
from somatlas.judges.registry import Judges, find_kind, kind_named
from somatlas.runs.fields import (
    FIELDS,
    FILES,
    JUDGE_MODELS,
    REDONE,
    STAGES,
    Fields,
    Stage,
    hints,
)
from somatlas.searches.samplers import SAMPLERS, sampler_settings

__all__ = ["FIELDS", "REDONE", "STAGES", "Config", "Stage"]


class _Parsed(BaseModel):
    """Values may be written as text, by each setting's own parser and check."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _parse(cls, value: Any, info: ValidationInfo) -> Any:
        check_no_boolean(value, hints()[info.field_name or ""])
        setting = FIELDS[info.field_name or ""]
        parse = setting.parse
        if isinstance(value, str):
            check_unicode("it", value)
        parsed = parse(value) if parse and isinstance(value, str) else value
        if value == "" and setting.default is None and (setting.form or parse):
            raise ValueError("must not be empty")  # as of a shell's variable that is not set
        return parsed

    @field_validator("*")
    @classmethod
    def _check(cls, value: Any, info: ValidationInfo) -> Any:
        check = FIELDS[info.field_name or ""].check
        return check(value) if check else value


if TYPE_CHECKING:
    _Model = Fields
else:
    _Model = create_model(
        "_Model",
        __base__=_Parsed,
        **{
            name: (
                hints()[name],
                Field(one.default, description=one.description, **(one.more or {})),
            )
            for name, one in FIELDS.items()
        },
    )


class Config(_Model):
    """Everything that decides a run's result, and how it is carried out.

    Each field has the stage from which on it matters (`stage_of`); what several say together is
    checked here.
    """

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

    @field_validator("judge", "more_judges")
    @classmethod
    def _known_judges(cls, value: Any) -> Any:
        for spec in (value,) if isinstance(value, str) else value:
            find_kind(spec)
        return value

    @field_validator("judge_settings")
    @classmethod
    def _known_judge_settings(cls, value: Any) -> Any:
        for name in value or ():
            kind_named(name)
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
    def _a_map_is_scaled(self) -> Self:
        if self.scale != "none" and "scale" not in METHODS.get(self.method).run_settings:
            raise ValueError(
                f"scale = {self.scale!r} is of what a map sees, and method {self.method!r} makes "
                "none: leave out --scale, or choose --method som"
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
        if self.startup >= self.trials and self.startup > FIELDS["startup"].default:
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
        if self.gpus_per_worker is not None and self.ray is None and self.workers is None:
            raise ValueError(
                f"gpus_per_worker = {self.gpus_per_worker:g} has no meaning without workers: give "
                "--workers or --ray"
            )
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
        return FIELDS[field].stage

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
                f"setting {name!r} cannot be {without_password(repr(values.get(name)))}: "
                f"{reason[0].lower()}{reason[1:]}"
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
