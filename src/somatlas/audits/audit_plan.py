"""The plan of an audit: all that decides what is measured, fixed before the first attack.

    FOLDER/plan.json    written first; its sha256 stands in every record and on every page

Two audits are comparable where their plans' hashes are the same: the models are no part of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, ValidationError, model_validator

from somatlas.arguments import check_kind
from somatlas.attacks.findings import Thresholds
from somatlas.attacks.frontier import BUDGETS
from somatlas.errors import InputError
from somatlas.records import NoBooleans, Record
from somatlas.runs.setting_sources import read_toml

Count = Annotated[int, Field(ge=1)]
NAMED = ("quick", "full")
_FREE = {"budget", "relearn"}  # what may be chosen of a named plan
MULTIPLE = 4  # of the budget, at which every attack is tried again


class Plan(NoBooleans, Record):
    """plan.json.

    title : quick, full, or the name of the file that it was read from. exploratory : it is none of
    the named plans as they are, whose budget and relearning alone may be chosen. attacks : trials
    of each, in order; attack_settings : what they are told beside. budget : 1, or 4 to go on to
    four times the trials. relearn : whether attacks that train the model run. caps : drifts in nats
    a token, rising. train_prompts : of the attacker's third, a side at most. val_prompts,
    val_harmless : what each trial answers, and what its drift is measured on; screen_prompts : of a
    side of these, whose replies' first tokens layers are screened by. tokens : of a reply.
    judge decides; more_judges are shown; judging : what they are told that decides. thresholds : of
    `Thresholds`. prompts : the sha256 of each part.
    """

    file: ClassVar[str] = "plan.json"

    title: str
    exploratory: bool
    attacks: dict[str, Count]
    attack_settings: dict[str, dict[str, Any]] = Field(default_factory=dict)
    budget: Literal[1, 4] = 1
    relearn: bool = False
    caps: tuple[Annotated[float, Field(gt=0)], ...] = BUDGETS
    seed: Annotated[int, Field(ge=0)] = 0
    seeds: Count = 1
    train_prompts: Count = 128
    val_prompts: Count = 32
    val_harmless: Count = 32
    screen_prompts: Count = 32
    test_harmful: Count = 128
    test_harmless: Count = 128
    test_borderline: Count = 64
    tokens: Count = 64
    judge: str = "keyword"
    more_judges: tuple[str, ...] = ()
    judging: dict[str, Any] = Field(default_factory=dict)
    thresholds: dict[str, float] = Field(default_factory=lambda: asdict(Thresholds()))
    resamples: Annotated[int, Field(ge=200)] = 10_000
    prompts: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not self.attacks:
            raise ValueError("a plan needs an attack")
        if len(self.caps) < 2 or list(self.caps) != sorted(set(self.caps)):
            raise ValueError("caps must be two drifts or more, rising")
        if unknown := set(self.attack_settings) - set(self.attacks):
            raise ValueError(f"attack_settings of {min(unknown)!r}, which is no attack of the plan")
        names = {field.name for field in fields(Thresholds)}
        if set(self.thresholds) != names:
            raise ValueError(f"thresholds must be {', '.join(sorted(names))}, and no others")
        return self

    @property
    def sha256(self) -> str:
        """Of everything in it, the version of the form left out."""
        content = self.model_dump(mode="json", exclude={"version"})
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def named(self) -> bool:
        """Whether it is one of the named plans, with or without changes."""
        return self.title in NAMED

    @property
    def limits(self) -> Thresholds:
        """The thresholds, whole."""
        return Thresholds(**self.thresholds)

    @property
    def multiples(self) -> tuple[int, ...]:
        """Budgets that are reported: 1, or 1 and 4."""
        return (1,) if self.budget == 1 else (1, MULTIPLE)

    def trials(self, attack: str) -> int:
        """How many attempts an attack has at the highest budget."""
        return self.attacks[attack] * self.multiples[-1]


def load_plan(named: str | Path, **changes: Any) -> Plan:
    """The plan of that name, or of a TOML file, with changes where they are not None.

    A file's thresholds are those named in it and the defaults. Raises InputError where there is no
    such plan or file, or what it says cannot be.
    """
    check_kind("plan", named, (str, Path), f"{', '.join(NAMED)} or a TOML file")
    known = str(named) in NAMED
    if not known and not Path(named).suffix:
        raise InputError(
            f"there is no plan {str(named)!r}: it must be {' or '.join(NAMED)}, or a TOML file"
        )
    place = files("somatlas") / "data" / "plans" / f"{named}.toml" if known else Path(named)
    content = read_toml(place, "plan")
    if taken := {"title", "exploratory", "version", "prompts", "judging"} & set(content):
        raise InputError(f"plan {named} says {min(taken)!r}, which is not a plan's to say")
    given = content.get("thresholds", {})
    if isinstance(given, Mapping):
        content["thresholds"] = asdict(Thresholds()) | dict(given)
    title = str(named) if known else Path(named).name
    read = _parsed({**content, "title": title, "exploratory": not known}, named)
    asked = {name: value for name, value in changes.items() if value is not None}
    found = _parsed({**read.plain(), **asked}, named)
    changed = {name for name in asked if getattr(found, name) != getattr(read, name)}
    return found.model_copy(update={"exploratory": read.exploratory or bool(changed - _FREE)})


def _parsed(content: Mapping[str, Any], named: str | Path) -> Plan:
    """A plan of plain values; raises InputError, naming the first that cannot be."""
    try:
        return Plan.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        reason = first["msg"].removeprefix("Value error, ")
        said = f"{place}: {reason[0].lower()}{reason[1:]}" if place else reason
        raise InputError(f"plan {named} cannot be taken ({said}): mend it") from None
