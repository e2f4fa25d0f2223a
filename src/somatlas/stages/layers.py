"""The refusal tokens, and the layer to cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import Tensor

from somatlas import layers as layer_rule
from somatlas.config import Config
from somatlas.errors import InputError
from somatlas.files import read_json, write_json
from somatlas.models.language_model import LanguageModel
from somatlas.progress import progress
from somatlas.prompts import Prompt, PromptSet
from somatlas.prompts.sets import spread, texts
from somatlas.representation_store import RepresentationStore
from somatlas.representations import represent
from somatlas.run import Run


@dataclass(frozen=True)
class _RuleData:
    """What the layer rule works with.

    single : the mean difference (d,) of each candidate layer. opening : harmful and harmless
    prompts that the refusal tokens are found on; those of val, that layers are scored on, first.
    """

    lm: LanguageModel
    val: tuple[list[Prompt], list[Prompt]]
    opening: tuple[list[Prompt], list[Prompt]]
    single: Mapping[int, Tensor]
    record: dict[str, Any]


def layers_stage(run: Run) -> None:
    """Score every candidate layer; those scored before an interruption are not scored again."""
    run.needs("represent")
    config = run.config
    store = RepresentationStore.open(run.path("representations"))
    candidates = _candidates(run, store)
    data = _own_data(run, store) if config.layer_data == "own" else _papers_data(run, candidates)
    harmful, harmless = map(texts, data.val)
    base_harmful, base_harmless = (
        layer_rule.first_token_log_probabilities(data.lm, texts(side), config.batch_size)
        for side in data.opening
    )
    if config.refusal_tokens is None:
        tokens = layer_rule.find_refusal_tokens(
            base_harmful,
            base_harmless,
            [prompt.category for prompt in data.opening[0]],
            decode=lambda token: str(data.lm.tokenizer.decode([token])),
        )
    else:
        tokens = valid_tokens(config.refusal_tokens, base_harmful.shape[1])
    base_scores = layer_rule.refusal_scores(
        base_harmful[: len(harmful)], tokens, config.refusal_epsilon
    )
    run.begin("layers")
    partial = run.path("layers.part.json")
    scores = {row["layer"]: layer_rule.LayerScore(**row) for row in _kept(run)}
    with progress("layers", len(candidates)) as advance:
        for layer in candidates:
            if layer not in scores:
                scores[layer] = layer_rule.score_layer(
                    data.lm,
                    layer,
                    data.single[layer],
                    harmful,
                    harmless,
                    refusal_tokens=tokens,
                    base_harmless=base_harmless[: len(harmless)],
                    batch_size=config.batch_size,
                    epsilon=config.refusal_epsilon,
                )
                write_json(partial, [asdict(score) for score in scores.values()])
            advance(1)
    chosen, gentle = layer_rule.choose_layer([scores[layer] for layer in candidates])
    write_json(
        run.path("layers.json"),
        {
            "layer": chosen,
            "chosen_by": "rule" if config.layer is None else "user",
            "kl_below_limit": gentle,
            "refusal_tokens": {
                "ids": tokens,
                "texts": [data.lm.tokenizer.decode([token]) for token in tokens],
                "found_on": None if config.refusal_tokens else len(base_harmful),
            },
            "base_refusal_score": float(base_scores.mean()),
            "data": data.record,
            "scores": [asdict(scores[layer]) for layer in candidates],
        },
    )
    partial.unlink()


def _own_data(run: Run, store: RepresentationStore) -> _RuleData:
    """The run's own prompts and representations, under its own system prompt."""
    single = (store.means("positive") - store.means("negative")).float()
    val, opening = _val_and_opening(run.prompts, run.config)
    record = {
        "source": "own",
        "system": run.config.system,
        "train": list(store.counts.values()),
        "val": list(map(len, val)),
    }
    return _RuleData(run.lm, val, opening, dict(zip(store.layers, single, strict=True)), record)


def _papers_data(run: Run, candidates: Sequence[int]) -> _RuleData:
    """The paper's: 128 + 128 train and 32 + 32 val prompts, no system prompt, the last token."""
    lm = replace(run.lm, system=None)
    prompts = run.rule_prompts
    val, opening = _val_and_opening(prompts, run.config)
    sides = (prompts.positive["train"], prompts.negative["train"])
    means = [
        represent(lm, texts(side), candidates, batch_size=run.config.batch_size)
        .double()
        .mean(dim=0)
        for side in sides
    ]
    single = dict(zip(candidates, (means[0] - means[1]).float(), strict=True))
    record = {
        "source": "paper",
        "system": None,
        "train": list(map(len, sides)),
        "val": list(map(len, val)),
        "prompts_sha256": prompts.sha256(),
    }
    return _RuleData(lm, val, opening, single, record)


def _val_and_opening(
    prompts: PromptSet, config: Config
) -> tuple[tuple[list[Prompt], list[Prompt]], tuple[list[Prompt], list[Prompt]]]:
    """Harmful and harmless val prompts; the same and train prompts, if tokens are sought."""
    val, opening = [], []
    for side in (prompts.positive, prompts.negative):
        own = spread(side["val"], config.layer_prompts)
        val.append(own)
        more = max(0, layer_rule.TOKEN_PROMPTS - len(own)) if config.refusal_tokens is None else 0
        opening.append([*own, *spread(side["train"], more)])
    return (val[0], val[1]), (opening[0], opening[1])


def _candidates(run: Run, store: RepresentationStore) -> list[int]:
    if run.config.layer is not None:
        return [run.config.layer]
    return rule_candidates(store.layers, run.lm.n_layers)


def rule_candidates(kept: Sequence[int], n_layers: int) -> list[int]:
    """Of the layers kept those that the rule looks at; raises InputError where there is none."""
    first = layer_rule.candidate_layers(n_layers)
    candidates = [layer for layer in kept if layer in first]
    if not candidates:
        raise InputError(
            f"none of the layers kept is among the first {len(first)}, where the rule looks: keep "
            "others with --layers, or give --layer"
        )
    return candidates


def _kept(run: Run) -> list[dict[str, Any]]:
    """Scores of the same settings that an interrupted stage left."""
    path = run.path("layers.part.json")
    return list(read_json(path)) if path.exists() else []


def valid_tokens(ids: Sequence[int], vocabulary: int) -> list[int]:
    """The refusal tokens given; raises InputError where one is beyond the vocabulary."""
    for token in ids:
        if not 0 <= token < vocabulary:
            raise InputError(f"refusal token {token} is not in the vocabulary of {vocabulary}")
    return list(ids)
