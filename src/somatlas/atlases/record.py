"""What an atlas is, as it is kept."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from somatlas.evaluation.evaluation import RateForm
from somatlas.records import Form, Interval, Record, like

_Place = tuple[float, float]
_Point = tuple[float, float, float]


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
    stress: float
    harmful: list[_Point]
    harmless: list[_Point]


_Steps = Annotated[list[_Step], Field(min_length=1)]


class _Means(Form):
    harmful: _Place
    harmless: _Place


class _Plane(Form):
    harmful: list[_Place]
    harmless: list[_Place]
    centroids: _Means
    ends: list[_Place]
    single: _Place
    variance: _Place
    to_scale: bool


class _Space(Form):
    harmful: list[_Point]
    harmless: list[_Point]
    neurons: list[_Point]
    edges: list[tuple[int, int]]
    variance: _Point

    @model_validator(mode="after")
    def _between_neurons(self) -> Self:
        if any(not 0 <= end < len(self.neurons) for edge in self.edges for end in edge):
            raise ValueError(f"edges must join two of {len(self.neurons)} neurons")
        return self


class _Agreement(Form):
    largest_angle: Interval
    matched_cosine: Interval
    rank_cosine: Interval | None
    rand: Interval | None


class _Repeats(Form):
    samples: _Agreement
    seeds: _Agreement


class _Stability(_Repeats):
    k: int
    nearest: bool = False
    without_sd: _Repeats | None = None


class _Borderline(Form):
    prompt: str
    neuron: int
    place: float
    refused: bool


class _Category(Form):
    count: int
    lift: float


class _Neuron(Form):
    neuron: int
    hits: int
    categories: dict[str, _Category]
    typical: list[str]
    rank: int | None
    refusal_score: float | None
    borderline: int
    borderline_refused: int


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
    plane: Annotated[dict[str, Any], like(_Plane)]
    steps: Annotated[list[dict[str, Any]], like(_Steps)]
    relations: dict[str, float | None]
    stability: Annotated[dict[str, Any] | None, like(dict[str, _Stability] | None)]
    missing: dict[str, str] = Field(default_factory=dict)
    contrast: Annotated[dict[str, Any], like(_Contrast)]
    knobs: Annotated[dict[str, Any] | None, like(_Knobs | None)]
    neurons: Annotated[list[dict[str, Any]] | None, like(list[_Neuron] | None)] = None
    information: Annotated[dict[str, Any] | None, like(_Information | None)] = None
    borderline: Annotated[list[dict[str, Any]] | None, like(list[_Borderline] | None)] = None
    over_refusal: Annotated[dict[str, Any] | None, like(_OverRefusal | None)] = None
    space: Annotated[dict[str, Any] | None, like(_Space | None)] = None

    @model_validator(mode="after")
    def _of_as_many_directions(self) -> Self:
        r = len(self.cosines)
        if any(len(row) != r for row in self.cosines) or len(self.cosines_with_single) != r:
            raise ValueError(f"cosines of {r} directions must be {r} by {r}, and with SD {r}")
        if len(self.plane["ends"]) != r:
            raise ValueError(f"plane.ends must be those of {r} directions")
        return self
