"""The refusal tokens, and the layer to cut."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from pydantic import BaseModel, ConfigDict
from torch import Tensor

from somatlas.files import read_json, remove, write_json
from somatlas.fleet import Work, deal
from somatlas.measures.layer_choice import (
    Ablated,
    Opening,
    RuleData,
    kept_candidates,
    measured,
    opening_of,
    rule_prompts,
    score_layers,
)
from somatlas.measures.layer_effects import LayerEffect, layers_a_batch
from somatlas.models.language_model import LanguageModel
from somatlas.progress import Advance
from somatlas.prompts import Prompt, PromptSet
from somatlas.prompts.prompt_set import texts
from somatlas.records import checked
from somatlas.representations.extract import residual_stream
from somatlas.representations.store import RepresentationStore
from somatlas.runs.folder import Run

Pair = tuple[list[Prompt], list[Prompt]]


class _Kept(BaseModel):
    """A row of layers.part.json: a `LayerEffect` and whose it is."""

    model_config = ConfigDict(extra="forbid")

    layer: int
    refusal: list[float]
    kl: list[float]


def layers_stage(run: Run) -> None:
    """Score the candidate layers; what was scored before an interruption is not scored again."""
    run.needs("represent")
    config = run.config
    store = RepresentationStore.open(run.path("representations"))
    if config.layer is None:
        candidates = kept_candidates(store.layers, run.shape.n_layers)
    else:
        candidates = [config.layer]
    data = _own_data(run, store) if config.layer_data == "own" else _papers_data(run, candidates)
    partial = run.path("layers.part.json")

    def keep(effects: Mapping[int, LayerEffect]) -> None:
        if not partial.exists():
            run.begin("layers")
        write_json(partial, [{"layer": one, **asdict(e)} for one, e in effects.items()])

    def measure(of: Ablated) -> Iterator[tuple[int, LayerEffect]]:
        prompts = len([*of.harmful, *of.harmless])
        pieces = deal(list(of.single), layers_a_batch(prompts, config.batch_size))
        for layers, found in zip(
            pieces, run.fleet.prepared(effect_work, of).each(pieces), strict=True
        ):
            yield from zip(layers, found, strict=True)

    kept: list[dict[str, Any]] = []
    if partial.exists():  # of the same settings
        kept = checked(list[_Kept], read_json(partial), str(partial))
    choice = score_layers(
        data,
        candidates,
        run.fleet.prepared(opening_work, data).one(None),
        measure,
        chosen_by="rule" if config.layer is None else "user",
        epsilon=config.refusal_epsilon,
        known={row.pop("layer"): LayerEffect(**row) for row in kept},
        keep=keep,
    )
    choice.write(run.folder)
    remove(partial)


def opening_work(run: Run, data: RuleData) -> Work[None, Opening]:
    """How the unchanged model begins its replies."""
    c = run.config

    def work(items: Sequence[None], _advance: Advance) -> list[Opening]:
        lm = _model(run)
        found = opening_of(lm, data, c.refusal_tokens, c.refusal_epsilon, c.batch_size)
        return [found for _ in items]

    return work


def effect_work(run: Run, of: Ablated) -> Work[int, LayerEffect]:
    """What the ablation of each of some layers does, all of them in one batch."""

    def work(layers: Sequence[int], _advance: Advance) -> list[LayerEffect]:
        some = replace(of, single={layer: of.single[layer] for layer in layers})
        return [effect for _, effect in measured(_model(run), run.config.batch_size, some)]

    return work


def mean_work(run: Run, layers: Sequence[int]) -> Work[list[str], Tensor]:
    """(layers, d) float64 means of the representations of prompts."""

    def work(sides: Sequence[list[str]], _advance: Advance) -> list[Tensor]:
        size = run.config.batch_size
        return [
            residual_stream(_model(run), side, layers, batch_size=size).double().mean(dim=0)
            for side in sides
        ]

    return work


def _model(run: Run) -> LanguageModel:
    """The run's, without its system prompt where the paper's prompts are put to it."""
    return replace(run.lm, system=None) if run.config.layer_data == "paper" else run.lm


def _own_data(run: Run, store: RepresentationStore) -> RuleData:
    """The run's own prompts and representations, under its own system prompt."""
    single = store.mean_differences()
    found = _prompts(run, run.prompts)
    record = {
        "source": "own",
        "system": run.config.system,
        "train": list(store.counts.values()),
        "val": list(map(len, found[0])),
    }
    return RuleData(dict(zip(store.layers, single, strict=True)), *found, record)


def _papers_data(run: Run, candidates: Sequence[int]) -> RuleData:
    """The paper's: 128 + 128 train and 32 + 32 val prompts, no system prompt, the last token."""
    prompts = run.rule_prompts
    found = _prompts(run, prompts)
    sides = (prompts.positive["train"], prompts.negative["train"])
    means = run.fleet.prepared(mean_work, list(candidates)).each([[texts(side)] for side in sides])
    harmful, harmless = (mean for (mean,) in means)
    single = dict(zip(candidates, (harmful - harmless).float(), strict=True))
    record = {
        "source": "paper",
        "system": None,
        "train": list(map(len, sides)),
        "val": list(map(len, found[0])),
        "prompts_sha256": prompts.sha256(),
    }
    return RuleData(single, *found, record)


def _prompts(run: Run, prompts: PromptSet) -> tuple[Pair, Pair]:
    return rule_prompts(
        prompts.val,
        prompts.train,
        run.config.layer_prompts,
        find_tokens=run.config.refusal_tokens is None,
    )
