"""The refusal tokens, and the layer to cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

from torch import Tensor

from somatlas.files import read_json, write_json
from somatlas.measures.layer_choice import (
    RuleData,
    kept_candidates,
    rule_prompts,
    score_layers,
)
from somatlas.measures.layer_effects import LayerEffect
from somatlas.models.language_model import LanguageModel
from somatlas.prompts import Prompt, PromptSet
from somatlas.prompts.prompt_set import texts
from somatlas.representations.extract import residual_stream
from somatlas.representations.store import RepresentationStore
from somatlas.runs.folder import Run

Pair = tuple[list[Prompt], list[Prompt]]


def layers_stage(run: Run) -> None:
    """Score the candidate layers; what was scored before an interruption is not scored again."""
    run.needs("represent")
    config = run.config
    store = RepresentationStore.open(run.path("representations"))
    if config.layer is None:
        candidates = kept_candidates(store.layers, run.lm.n_layers)
    else:
        candidates = [config.layer]
    data = _own_data(run, store) if config.layer_data == "own" else _papers_data(run, candidates)
    partial = run.path("layers.part.json")

    def keep(effects: Mapping[int, LayerEffect]) -> None:
        if not partial.exists():
            run.begin("layers")
        write_json(partial, [{"layer": one, **asdict(e)} for one, e in effects.items()])

    kept = read_json(partial) if partial.exists() else []  # of the same settings
    choice = score_layers(
        data,
        candidates,
        chosen_by="rule" if config.layer is None else "user",
        refusal_tokens=config.refusal_tokens,
        epsilon=config.refusal_epsilon,
        batch_size=config.batch_size,
        known={row.pop("layer"): LayerEffect(**row) for row in kept},
        keep=keep,
    )
    choice.write(run.folder)
    partial.unlink(missing_ok=True)


def _own_data(run: Run, store: RepresentationStore) -> RuleData:
    """The run's own prompts and representations, under its own system prompt."""
    single = (store.means("positive") - store.means("negative")).float()
    found = _prompts(run, run.prompts)
    record = {
        "source": "own",
        "system": run.config.system,
        "train": list(store.counts.values()),
        "val": list(map(len, found[0])),
    }
    return RuleData(run.lm, dict(zip(store.layers, single, strict=True)), *found, record)


def _papers_data(run: Run, candidates: Sequence[int]) -> RuleData:
    """The paper's: 128 + 128 train and 32 + 32 val prompts, no system prompt, the last token."""
    lm = replace(run.lm, system=None)
    prompts = run.rule_prompts
    found = _prompts(run, prompts)
    sides = (prompts.positive["train"], prompts.negative["train"])
    means = [_mean(lm, texts(side), candidates, run.config.batch_size) for side in sides]
    single = dict(zip(candidates, (means[0] - means[1]).float(), strict=True))
    record = {
        "source": "paper",
        "system": None,
        "train": list(map(len, sides)),
        "val": list(map(len, found[0])),
        "prompts_sha256": prompts.sha256(),
    }
    return RuleData(lm, single, *found, record)


def _prompts(run: Run, prompts: PromptSet) -> tuple[Pair, Pair]:
    return rule_prompts(
        prompts.val,
        prompts.train,
        run.config.layer_prompts,
        find_tokens=run.config.refusal_tokens is None,
    )


def _mean(lm: LanguageModel, prompts: Sequence[str], layers: Sequence[int], size: int) -> Tensor:
    return residual_stream(lm, prompts, layers, batch_size=size).double().mean(dim=0)
