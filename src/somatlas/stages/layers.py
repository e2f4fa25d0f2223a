"""The refusal tokens, and the layer to cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from somatlas import layers as layer_rule
from somatlas.errors import InputError
from somatlas.files import read_json, write_json
from somatlas.progress import progress
from somatlas.prompts.sets import spread, texts
from somatlas.representation_store import RepresentationStore
from somatlas.run import Run


def layers_stage(run: Run) -> None:
    """Score every candidate layer; those scored before an interruption are not scored again."""
    run.needs("represent")
    config, lm = run.config, run.lm
    store = RepresentationStore.open(run.path("representations"))
    harmful = texts(spread(run.prompts.positive["val"], config.layer_prompts))
    harmless = texts(spread(run.prompts.negative["val"], config.layer_prompts))
    base = layer_rule.first_token_log_probabilities(lm, [*harmful, *harmless], config.batch_size)
    base_harmful, base_harmless = base[: len(harmful)], base[len(harmful) :]
    if config.refusal_tokens is None:
        tokens = layer_rule.find_refusal_tokens(base_harmful, base_harmless)
    else:
        tokens = _valid_tokens(config.refusal_tokens, base_harmful.shape[1])
    candidates = _candidates(run, store)
    single = (store.means("positive") - store.means("negative")).float()
    run.begin("layers")
    partial = run.path("layers.part.json")
    scores = {row["layer"]: layer_rule.LayerScore(**row) for row in _kept(run)}
    with progress("layers", len(candidates)) as advance:
        for layer in candidates:
            if layer not in scores:
                scores[layer] = layer_rule.score_layer(
                    lm,
                    layer,
                    single[store.layers.index(layer)],
                    harmful,
                    harmless,
                    refusal_tokens=tokens,
                    base_harmless=base_harmless,
                    batch_size=config.batch_size,
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
                "texts": [lm.tokenizer.decode([token]) for token in tokens],
            },
            "base_refusal_score": float(layer_rule.refusal_scores(base_harmful, tokens).mean()),
            "scores": [asdict(scores[layer]) for layer in candidates],
        },
    )
    partial.unlink()


def _candidates(run: Run, store: RepresentationStore) -> list[int]:
    if run.config.layer is not None:
        return [run.config.layer]
    first = layer_rule.candidate_layers(run.lm.n_layers)
    candidates = [layer for layer in store.layers if layer in first]
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


def _valid_tokens(ids: Sequence[int], vocabulary: int) -> list[int]:
    for token in ids:
        if not 0 <= token < vocabulary:
            raise InputError(f"refusal token {token} is not in the vocabulary of {vocabulary}")
    return list(ids)
