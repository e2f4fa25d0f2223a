"""What an atlas is, as it is kept."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from somatlas.records import Record


class Atlas(Record):
    """atlas.json: what a map, or another method's directions, says of a model.

    layer : that is cut. cosines : (r, r) between the directions, and of each with SD. plane :
    representations and directions in the plane (`atlases.plane`). steps : ablating 0, 1, ...
    directions one after another, the chosen ones first, a row each (`atlases.over_k`). relations :
    correlation with ASR over the steps. stability : by method (`atlases.stability`), None where it
    could not be measured, for the reason in `missing`. contrast : other harmless sides; knobs :
    each direction alone, None where there is one alone (`atlases.controls`).

    Of maps alone, None for other methods: neurons, one row each (`atlases.neurons`); information :
    bits that the neuron tells of the category; borderline : where each borderline test prompt lies;
    over_refusal : whether the refused ones lie towards the harmful; space : neurons and prompts in
    three dimensions.
    """

    file: ClassVar[str] = "atlas.json"

    layer: int
    cosines: list[list[float]]
    cosines_with_single: list[float]
    plane: dict[str, Any]
    steps: list[dict[str, Any]]
    relations: dict[str, Any]
    stability: dict[str, Any] | None
    missing: dict[str, str] = Field(default_factory=dict)
    contrast: dict[str, Any]
    knobs: dict[str, Any] | None
    neurons: list[dict[str, Any]] | None = None
    information: dict[str, Any] | None = None
    borderline: list[dict[str, Any]] | None = None
    over_refusal: dict[str, Any] | None = None
    space: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _of_as_many_directions(self) -> Self:
        r = len(self.cosines)
        if any(len(row) != r for row in self.cosines) or len(self.cosines_with_single) != r:
            raise ValueError(f"cosines of {r} directions must be {r} by {r}, and with SD {r}")
        return self
