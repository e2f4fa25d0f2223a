"""What an atlas is, as it is kept."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from somatlas.evaluation.evaluation import RateForm
from somatlas.records import Form, Record, like


class _Step(Form):
    k: int
    ranks: list[int]
    n: int
    asr: float
    refusal: float
    babble: float
    harmless_answered: float
    kl: float
    compactness: float | None
    harmless_compactness: float | None
    ratio: float | None
    distance: float | None


class _Neuron(Form):
    neuron: int
    hits: int
    categories: dict[str, Any]
    typical: list[str]
    rank: int | None


class _Refusals(Form):
    refusal: RateForm
    harmless_refusal: RateForm | None = None
    borderline_refusal: RateForm | None = None


class _Side(_Refusals):
    side: Literal["matched", "shuffled", "given", "general"]
    n_harmful: int
    n_harmless: int
    cosine: float
    kl: float


class _Tested(Form):
    p: float


class _Differ(_Tested):
    n: int


class _Contrast(Form):
    """Of harmless sides; without any, why they are missing is all there is."""

    sides: list[_Side]
    missing: list[str]
    base: _Refusals | None = None
    differ: _Differ | None = None
    effect: _Tested | None = None

    @model_validator(mode="after")
    def _compared(self) -> Self:
        if self.sides and None in (self.base, self.differ, self.effect):
            raise ValueError("sides are not compared with base")
        return self


class _Arm(_Refusals):
    kl: float


class _Cell(_Arm):
    rank: int


class _Knobs(Form):
    base: _Arm
    sd: _Arm
    cells: list[_Cell]
    differ: dict[str, _Differ]
    one_knob: _Tested | None


class _Information(Form):
    bits: float
    chance: float
    p: float
    shuffled: str


class _OverRefusal(Form):
    refused: int
    answered: int
    place_refused: float | None
    place_answered: float | None
    auc: float | None


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
    steps: Annotated[list[dict[str, Any]], like(list[_Step])]
    relations: dict[str, float | None]
    stability: dict[str, Any] | None
    missing: dict[str, str] = Field(default_factory=dict)
    contrast: Annotated[dict[str, Any], like(_Contrast)]
    knobs: Annotated[dict[str, Any] | None, like(_Knobs | None)]
    neurons: Annotated[list[dict[str, Any]] | None, like(list[_Neuron] | None)] = None
    information: Annotated[dict[str, Any] | None, like(_Information | None)] = None
    borderline: list[dict[str, Any]] | None = None
    over_refusal: Annotated[dict[str, Any] | None, like(_OverRefusal | None)] = None
    space: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _of_as_many_directions(self) -> Self:
        r = len(self.cosines)
        if any(len(row) != r for row in self.cosines) or len(self.cosines_with_single) != r:
            raise ValueError(f"cosines of {r} directions must be {r} by {r}, and with SD {r}")
        return self
