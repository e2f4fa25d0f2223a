"""A run's folder as typed records: the one module that knows each file's name and form.

| attribute        | file                              | made by   |
|------------------|-----------------------------------|-----------|
| settings         | config.toml                       | (first)   |
| stages           | stages.json                       | (all)     |
| inputs           | inputs.json                       | represent |
| representations  | representations/                  | represent |
| layers           | layers.json                       | layers    |
| map              | map.safetensors, map.json         | map       |
| directions       | directions.safetensors            | map       |
| single           | single_direction.safetensors      | map       |
| search           | search.json                       | search    |
| completions      | completions/<condition>.jsonl     | ablate    |
| effects          | ablate.json                       | ablate    |
| verdicts         | verdicts.jsonl                    | judge     |
| judging          | judge.json                        | judge     |
| evaluation       | evaluation.json, table.txt        | judge     |
| cost             | cost.json, cost.txt               | cost      |
| atlas            | atlas.json                        | atlas     |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from somatlas.atlases.record import Atlas
from somatlas.completions.completion import Completion, read_completions
from somatlas.directions.direction_set import DirectionSet
from somatlas.errors import InputError
from somatlas.evaluation.cost import Cost
from somatlas.evaluation.effects import Effects
from somatlas.evaluation.evaluate import reply_frame
from somatlas.evaluation.evaluation import Evaluation
from somatlas.evaluation.verdicts import VerdictRow, read_verdicts
from somatlas.measures.layer_choice import LayerChoice
from somatlas.records import Record
from somatlas.representations.sides import Representations, stored_representations
from somatlas.representations.store import RepresentationStore
from somatlas.runs.map_file import MapFile, read_map
from somatlas.runs.setting_sources import read_run_settings
from somatlas.runs.settings import Config
from somatlas.runs.stages_file import read_stages
from somatlas.searches.result import SearchResult

if TYPE_CHECKING:
    from pandas import DataFrame


class Inputs(Record):
    """inputs.json: how prompts are put to the model, and what a reader should know of them."""

    file: ClassVar[str] = "inputs.json"

    notes: list[str]
    date: str | None
    content_in_parts: list[str]


class Judging(Record):
    """judge.json: the first judge's name, the check of answers, and what each judge is."""

    file: ClassVar[str] = "judge.json"

    judge: str
    coherence: dict[str, Any] | None
    judges: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Contents:
    """What a run's folder holds, each file read when it is asked for.

    Attributes raise InputError where a file is missing, damaged or of another form; `there` says
    whether one is there.
    """

    folder: Path

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Every setting of the run."""
        return read_run_settings(self.folder)

    @property
    def stages(self) -> dict[str, Any]:
        """The stages that were done or begun: settings, seconds, and what else they recorded."""
        return read_stages(self.folder)

    @cached_property
    def inputs(self) -> Inputs:
        return Inputs.read(self.folder)

    @cached_property
    def representations(self) -> Representations:
        """Of the train prompts; a layer is read when it is indexed, as `harmful[:, place]`.

        Raises InputError where the files of prompts are no longer what they were.
        """
        from somatlas.prompts.sources import named_prompts
        from somatlas.runs.folder import prompt_sources

        config = Config.merged(self.settings)
        prompts = named_prompts(prompt_sources(config))
        made = self.stages.get("represent", {}).get("settings", {}).get("prompts_sha256")
        if made is None:
            raise InputError(f"{self.folder} has no representations: run `somatlas represent`")
        if prompts.sha256() != made:
            raise InputError(
                f"the prompts of {self.folder} have changed since it was made: its representations "
                "are of others"
            )
        if config.train_prompts is not None:
            prompts = prompts.limited({"train": config.train_prompts})
        return stored_representations(self.store, prompts.train)

    @cached_property
    def store(self) -> RepresentationStore:
        """The shards behind `representations`."""
        return RepresentationStore.open(self.folder / "representations")

    @cached_property
    def layers(self) -> LayerChoice:
        return LayerChoice.read(self.folder)

    @cached_property
    def map(self) -> MapFile:
        return read_map(self.folder)

    @cached_property
    def directions(self) -> DirectionSet:
        return DirectionSet.load(self.folder / "directions.safetensors")

    @cached_property
    def single(self) -> DirectionSet:
        return DirectionSet.load(self.folder / "single_direction.safetensors")

    @cached_property
    def search(self) -> SearchResult:
        return SearchResult.read(self.folder)

    @cached_property
    def effects(self) -> Effects:
        return Effects.read(self.folder)

    @property
    def conditions(self) -> Mapping[str, str]:
        """The conditions that were tested: name -> title."""
        return self.effects.conditions

    @cached_property
    def completions(self) -> dict[str, list[Completion]]:
        """The replies of each condition."""
        return {name: read_completions(self.completions_path(name)) for name in self.conditions}

    def completions_path(self, condition: str) -> Path:
        """The file of a condition's replies."""
        return self.folder / "completions" / f"{condition}.jsonl"

    @cached_property
    def verdicts(self) -> list[VerdictRow]:
        path = self.folder / "verdicts.jsonl"
        rows = read_verdicts(path)
        if missing := set(self.conditions) - {row.condition for row in rows}:
            raise InputError(
                f"{path} has no verdict on condition {min(missing)!r}: judge the replies again"
            )
        return rows

    @property
    def judged_completions(self) -> list[Completion]:
        """The replies of all conditions in the verdicts' order; raises InputError where the
        verdicts are of others."""
        found = [(name, one) for name, side in self.completions.items() for one in side]
        own = [(name, one.prompt_id, one.system, one.sample) for name, one in found]
        if own != [(v.condition, v.prompt_id, v.system, v.sample) for v in self.verdicts]:
            raise InputError(
                f"the replies in {self.folder / 'completions'} are others than its verdicts are "
                "of: judge the replies again"
            )
        return [one for _, one in found]

    @cached_property
    def judging(self) -> Judging:
        return Judging.read(self.folder)

    @cached_property
    def evaluation(self) -> Evaluation:
        return Evaluation.read(self.folder)

    @cached_property
    def cost(self) -> Cost:
        return Cost.read(self.folder)

    @cached_property
    def atlas(self) -> Atlas:
        return Atlas.read(self.folder)

    def to_frame(self) -> DataFrame:
        """A pandas frame with a row a reply: see `somatlas.evaluation.evaluate.reply_frame`."""
        self.judged_completions  # noqa: B018  # raises where these are not of one another
        return reply_frame(self.verdicts, self.completions)
