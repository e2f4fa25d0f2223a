"""Which layer to cut, from representations and prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from somatlas.arguments import check_kind, check_real, check_whole, whole_numbers
from somatlas.errors import InputError
from somatlas.measures.layer_effects import LayerEffect, layer_effects
from somatlas.measures.layer_rule import (
    LayerScore,
    best_layer,
    candidate_layers,
    find_refusal_tokens,
    first_token_log_probabilities,
    refusal_scores,
    rivals,
)
from somatlas.models.language_model import MODEL, LanguageModel
from somatlas.progress import Advance, progress
from somatlas.prompts.prompt_set import Prompt, PromptSplit, check_split, spread, texts
from somatlas.records import Record
from somatlas.representations.sides import Representations

FEW = 8  # harmful prompts that layers are scored on which KL rules out: for the figure alone
TOKEN_PROMPTS = 64  # a side that the tokens are found on: a first token costs one forward pass


class LayerChoice(Record):
    """layers.json: the layer that is cut, and the score of every candidate.

    chosen_by : "rule", or "user" where the layer was given. kl_below_limit : whether a candidate
    kept KL below 0.1. refusal_tokens : `ids`, `texts`, and how many prompts they were found on
    (`found_on`, None where they were given). data : the prompts that the rule worked with.
    """

    file: ClassVar[str] = "layers.json"

    layer: int
    chosen_by: str
    kl_below_limit: bool
    refusal_tokens: dict[str, Any]
    base_refusal_score: float
    data: dict[str, Any]
    scores: list[LayerScore]


@dataclass(frozen=True)
class RuleData:
    """What the layer rule works with.

    single : the mean difference (d,) of each candidate layer. val : harmful and harmless prompts
    that layers are scored on. opening : those that the refusal tokens are found on, val first.
    record : where all of it comes from.
    """

    single: Mapping[int, Tensor]
    val: tuple[list[Prompt], list[Prompt]]
    opening: tuple[list[Prompt], list[Prompt]]
    record: Mapping[str, Any]


@dataclass(frozen=True)
class Opening:
    """How the unchanged model begins its replies.

    tokens : ids of the refusal tokens, and their texts. found_on : how many harmful prompts they
    were found on; None where they were given. score : mean refusal score on the harmful val
    prompts. harmless : (n, vocabulary) log p of the first token on the harmless ones.
    """

    tokens: list[int]
    texts: list[str]
    found_on: int | None
    score: float
    harmless: Tensor


@dataclass(frozen=True)
class Ablated:
    """What layers are ablated on: some of the val prompts, the opening's `harmless` of those that
    are harmless, and the mean difference (d,) of each layer."""

    single: Mapping[int, Tensor]
    harmful: list[str]
    harmless: list[str]
    tokens: list[int]
    base_harmless: Tensor
    epsilon: float


# What the ablation of each of those layers does, in their order.
Measure = Callable[[Ablated], Iterable[tuple[int, LayerEffect]]]


def choose_layer(
    lm: LanguageModel,
    representations: Representations,
    val: PromptSplit,
    *,
    prompts: int = 32,
    refusal_tokens: Sequence[int] | None = None,
    epsilon: float = 0.0,
    batch_size: int = 128,
) -> LayerChoice:
    """The layer to cut: of the first 80 % that keep KL below 0.1, the one of lowest refusal score.

    representations : of the train prompts; their mean difference is what is ablated, layer by
    layer. val : prompts that the layers are scored on, `prompts` a side (paper: 32). refusal_tokens
    : ids that open a refusal; found on 64 prompts a side, val before train, if not given. epsilon :
    added to p and 1 - p in the score (paper: 1e-8).

    Raises InputError where no refusal token is found, one is not in the vocabulary, none of the
    layers kept is a candidate, or val lacks a side.

        layer = choose_layer(lm, represent(lm, prompts.train), prompts.val).layer
    """
    check_kind("lm", lm, LanguageModel, MODEL)
    check_kind("representations", representations, Representations, "what represent returned")
    check_split(val)
    check_whole("prompts", prompts, 1)
    check_whole("batch_size", batch_size, 1)
    check_real("epsilon", epsilon, least=0)
    if refusal_tokens is not None:
        refusal_tokens = whole_numbers("refusal_tokens", refusal_tokens, "[40, 19309]")
    found = rule_prompts(val, representations.prompts, prompts, find_tokens=refusal_tokens is None)
    candidates = representations.layers
    differences = torch.from_numpy(representations.mean_differences())
    single = dict(zip(candidates, differences, strict=True))
    record = {
        "source": "own",
        "system": lm.system,
        "train": [len(representations.harmful), len(representations.harmless)],
        "val": list(map(len, found[0])),
    }
    data = RuleData(single, *found, record)
    return score_layers(
        data,
        kept_candidates(candidates, lm.n_layers),
        opening_of(lm, data, refusal_tokens, epsilon, batch_size),
        partial(measured, lm, batch_size),
        epsilon=epsilon,
    )


def opening_of(
    lm: LanguageModel,
    data: RuleData,
    refusal_tokens: Sequence[int] | None,
    epsilon: float,
    batch_size: int,
) -> Opening:
    """The opening of the unchanged model's replies; raises InputError where no refusal token is
    found, or one of those given is not in the vocabulary."""
    harmful, harmless = (
        first_token_log_probabilities(lm, texts(side), batch_size) for side in data.opening
    )
    if refusal_tokens is None:
        tokens = sought_tokens(lm, data.opening[0], harmful, harmless)
    else:
        tokens = valid_tokens(refusal_tokens, harmful.shape[1])
    n, m = map(len, data.val)
    return Opening(
        tokens,
        [lm.tokenizer.decode([token]) for token in tokens],
        None if refusal_tokens else len(harmful),
        float(refusal_scores(harmful[:n], tokens, epsilon).mean()),
        harmless[:m],
    )


def sought_tokens(
    lm: LanguageModel, asked: Sequence[Prompt], harmful: Tensor, harmless: Tensor
) -> list[int]:
    """The refusal tokens, by log p (n, vocabulary) of the first reply token to the harmful prompts
    asked and to harmless ones; raises InputError where there are none."""
    return find_refusal_tokens(
        harmful,
        harmless,
        [prompt.category for prompt in asked],
        decode=lambda token: str(lm.tokenizer.decode([token])),
    )


def measured(lm: LanguageModel, batch_size: int, of: Ablated) -> Iterator[tuple[int, LayerEffect]]:
    """What the ablation of layers does, on a model that is at hand."""
    return layer_effects(
        lm,
        of.single,
        of.harmful,
        of.harmless,
        refusal_tokens=of.tokens,
        base_harmless=of.base_harmless,
        batch_size=batch_size,
        epsilon=of.epsilon,
    )


def rule_prompts(
    val: PromptSplit, train: PromptSplit, count: int, *, find_tokens: bool
) -> tuple[tuple[list[Prompt], list[Prompt]], tuple[list[Prompt], list[Prompt]]]:
    """Harmful and harmless val prompts, `count` a side; the same and train prompts, if tokens are
    sought."""
    scored, opening = [], []
    for own, further in ((val.harmful, train.harmful), (val.harmless, train.harmless)):
        chosen = spread(own, count)
        scored.append(chosen)
        more = max(0, TOKEN_PROMPTS - len(chosen)) if find_tokens else 0
        opening.append([*chosen, *spread(further, more)])
    return (scored[0], scored[1]), (opening[0], opening[1])


def kept_candidates(layers: Sequence[int], n_layers: int) -> list[int]:
    """The candidates among the layers kept; raises InputError where there is none."""
    first = candidate_layers(n_layers)
    candidates = [layer for layer in layers if layer in first]
    if not candidates:
        raise InputError(
            f"none of the layers kept is among the first {len(first)}, where the rule looks: keep "
            "others with --layers, or give --layer"
        )
    return candidates


def score_layers(
    data: RuleData,
    candidates: Sequence[int],
    opening: Opening,
    measure: Measure,
    *,
    chosen_by: str = "rule",
    epsilon: float = 0.0,
    known: Mapping[int, LayerEffect] | None = None,
    keep: Callable[[Mapping[int, LayerEffect]], None] = lambda _: None,
) -> LayerChoice:
    """Score every candidate, those whose KL rules them out on a few harmful prompts, and choose.

    known : effects of an interrupted call with the same data, which are not made again. keep : is
    given all effects so far after each that is made.
    """
    found = {layer: deepcopy((known or {}).get(layer, LayerEffect())) for layer in candidates}
    few = spread(range(len(data.val[0])), FEW)
    rest = [place for place in range(len(data.val[0])) if place not in few]

    def add(
        layers: Sequence[int], harmful: Sequence[int], harmless: Sequence[int], advance: Advance
    ) -> None:
        """What the ablation of layers does to the prompts at those places of either side."""
        of = Ablated(
            {layer: data.single[layer] for layer in layers},
            texts([data.val[0][place] for place in harmful]),
            texts([data.val[1][place] for place in harmless]),
            opening.tokens,
            opening.harmless[list(harmless)],
            epsilon,
        )
        for layer, effect in measure(of):
            found[layer].add(effect)
            keep(found)
            advance(1)

    with progress("layers", len(candidates)) as advance:
        new = [layer for layer in candidates if not found[layer].kl]
        advance(len(candidates) - len(new))
        add(new, few, range(len(data.val[1])), advance)
    compared = rivals({layer: found[layer].score(layer).kl for layer in candidates})
    short = [layer for layer in compared if len(found[layer].refusal) < len(few) + len(rest)]
    if short:
        with progress("gentle layers", len(short)) as advance:
            add(short, rest, [], advance)
    scores = [
        found[layer].score(layer, None if layer in compared or not rest else len(few))
        for layer in candidates
    ]
    chosen, gentle = best_layer(scores)
    return LayerChoice(
        layer=chosen,
        chosen_by=chosen_by,
        kl_below_limit=gentle,
        refusal_tokens={
            "ids": opening.tokens,
            "texts": opening.texts,
            "found_on": opening.found_on,
        },
        base_refusal_score=opening.score,
        data=dict(data.record),
        scores=scores,
    )


def valid_tokens(ids: Sequence[int], vocabulary: int) -> list[int]:
    """The refusal tokens given; raises InputError where there is none, one twice, or one beyond the
    vocabulary."""
    if not ids or len(set(ids)) < len(ids):
        raise InputError(f"refusal tokens must be different ids, and one at least, not {list(ids)}")
    for token in ids:
        if not 0 <= token < vocabulary:
            raise InputError(f"refusal token {token} is not in the vocabulary of {vocabulary}")
    return list(ids)
