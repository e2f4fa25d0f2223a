"""What the map says of the model: the numbers behind the report's figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from somatlas.atlases import (
    describe_neurons,
    geometry_at,
    in_one_frame,
    over_refusal,
    places_on_sd,
    plane,
    relations,
    space,
)
from somatlas.atlases.neurons import category_information
from somatlas.directions.direction_set import DirectionSet
from somatlas.measures.drift import Drift
from somatlas.errors import InputError
from somatlas.evaluation.evaluation import read_jsonl
from somatlas.files import read_json, read_tensors, write_json
from somatlas.numerics.geometry import cosine_matrix, unit_rows
from somatlas.ablation import Projection
from somatlas.judges import Verdict
from somatlas.measures.layer_rule import first_token_log_probabilities, refusal_scores
from somatlas.progress import progress
from somatlas.prompts import Prompt
from somatlas.prompts.prompt_set import spread, texts
from somatlas.representations.store import RepresentationStore
from somatlas.representations.extract import residual_stream
from somatlas.runs.folder import Run, chosen_layer
from somatlas.directions.som import SOM
from somatlas.runs.stages.ablate_stage import chosen_directions, harmless_drift
from somatlas.runs.stages.atlas_controls import controls
from somatlas.runs.stages.map_stage import contrast_of, make_map
from somatlas.runs.stages.represent_stage import token_read
from somatlas.runs.stages.search_stage import Trials
from somatlas.runs.stages.atlas_stability import stability_of

_ANSWERED = 32  # test prompts a side that are answered at every step
_CLOUD = 100  # test prompts a side whose geometry is measured there
_SCORED = 64  # train prompts whose refusal score is measured
# Methods whose vectors are axes: their length is no distance, and they are drawn as long as SD.
_AXES = ("random", "covariance", "pca", "leace", "leace-binary")
_STEPS = 5  # directions ablated one after another, at most, or k where that is more


def atlas_stage(run: Run) -> None:
    """Write atlas.json: neurons, plane, geometry over k, stability, controls."""
    run.needs("judge")
    config = run.config
    layer = chosen_layer(run)
    store = RepresentationStore.open(run.path("representations"))
    contrast = contrast_of(run, store, layer, store.at("positive", layer))
    harmful, harmless = (x.double().numpy() for x in (contrast.harmful, contrast.harmless))
    directions = DirectionSet.load(run.path("directions.safetensors"))
    vectors = directions.vectors.double().numpy()
    single = DirectionSet.load(run.path("single_direction.safetensors")).vectors.double().numpy()
    to_scale = config.method not in _AXES
    drawn = vectors if to_scale else unit_rows(vectors) * np.linalg.norm(single)
    trials, drift = Trials(run, directions), harmless_drift(run)
    content: dict[str, Any] = {
        "layer": layer,
        "cosines": np.round(cosine_matrix(vectors), 4).tolist(),
        "cosines_with_single": np.round(cosine_matrix([*vectors, *single])[-1, :-1], 4).tolist(),
        "plane": {
            **plane(harmful, harmless, drawn, single[0]),
            "to_scale": to_scale,
        },
        "steps": _steps(run, layer, directions, trials, drift),
    }
    content["relations"] = relations(content["steps"])
    try:
        content["stability"] = stability_of(run, contrast)
    except InputError as error:  # as where a sample of few prompts is smaller than the map
        content |= {"stability": None, "missing": {"stability": str(error)}}
    content |= controls(run, contrast, directions, trials, drift)
    if config.method == "som":
        content |= _neurons(run, layer, harmful, harmless, directions)
    write_json(run.path("atlas.json"), content)


def _steps(
    run: Run, layer: int, directions: DirectionSet, trials: Trials, drift: Drift
) -> list[dict[str, Any]]:
    """Ablate 0, 1, ... directions: the chosen ranks first, then the others in order."""
    ranks, vectors = chosen_directions(run)
    rest = [i for i in range(len(directions)) if run.config.directions or i not in ranks]
    count = max(_STEPS, len(ranks))
    every = torch.cat([vectors, directions.vectors[rest]])[:count]
    names = [*ranks, *rest][:count]
    sides = run.prompts.positive["test"], run.prompts.negative["test"]
    harmful, harmless = (texts(spread(side, _CLOUD)) for side in sides)
    answered = [texts(spread(side, _ANSWERED)) for side in sides]
    projections = [Projection(every[:k], run.config.mode) for k in range(1, len(every) + 1)]
    shares, harmless_shares = (trials.shares(projections, side) for side in answered)
    steps, clouds = [], []
    where = token_read(run, [*harmful, *harmless])
    with progress("geometry", len(every) + 1) as advance:
        for k, projection in enumerate([None, *projections]):
            with run.lm.ablate(projection):
                both = residual_stream(
                    run.lm,
                    [*harmful, *harmless],
                    [layer],
                    batch_size=run.config.batch_size,
                    **where,
                )[:, 0]
            cloud = both.double().numpy()
            step = {
                "k": k,
                "ranks": names[:k],
                "n": len(answered[0]),
                **shares[k],
                "harmless_answered": harmless_shares[k]["asr"],
                "kl": 0.0 if projection is None else drift.under(projection),
            }
            clouds.append((cloud[: len(harmful)], cloud[len(harmful) :]))
            steps.append({**step, **geometry_at(*clouds[-1])})
            advance(1)
    return [step | places for step, places in zip(steps, in_one_frame(clouds), strict=True)]


def _neurons(
    run: Run,
    layer: int,
    harmful: NDArray[np.float64],
    harmless: NDArray[np.float64],
    directions: DirectionSet,
) -> dict[str, Any]:
    tensors, _ = read_tensors(run.path("map.safetensors"))
    prompts = run.prompts.positive["train"]
    bmus = tensors["bmus"].numpy()
    som = make_map(run.config)
    som.weights_ = tensors["weights"].numpy()
    scores = np.full(len(prompts), np.nan)
    places = spread(range(len(prompts)), _SCORED)
    tokens = (
        read_json(run.path("layers.json"))["refusal_tokens"]["ids"] if run.is_done("layers") else []
    )
    if tokens:
        log_p = first_token_log_probabilities(
            run.lm, [prompts[i].text for i in places], run.config.batch_size
        )
        scores[places] = refusal_scores(log_p, tokens, run.config.refusal_epsilon).numpy()
    categories = [prompt.category for prompt in prompts]
    ordered = read_json(run.path("map.json"))["ordered"]
    edges = som.edges() if ordered else np.empty((0, 2), dtype=np.int64)
    neurons = describe_neurons(harmful, som.weights_, bmus, texts(prompts), categories, scores)
    ranks = {int(neuron): rank for rank, neuron in enumerate(directions.neurons)}
    border = _borderline(run, layer, som, harmful.mean(axis=0), harmless.mean(axis=0))
    for neuron in neurons:
        own = [row for row in border if row["neuron"] == neuron["neuron"]]
        neuron["rank"] = ranks.get(neuron["neuron"])
        neuron["borderline"] = len(own)
        neuron["borderline_refused"] = sum(row["refused"] for row in own)
    return {
        "neurons": neurons,
        "information": category_information(
            bmus, categories, [prompt.syntax for prompt in prompts], run.config.seed
        ),
        "borderline": border,
        "over_refusal": over_refusal(
            [row["place"] for row in border], [row["refused"] for row in border]
        ),
        "space": space(harmful, harmless, som.weights_, edges),
    }


def _borderline(
    run: Run,
    layer: int,
    som: SOM,
    harmful_mean: NDArray[np.float64],
    harmless_mean: NDArray[np.float64],
) -> list[dict[str, Any]]:
    """Where the borderline test prompts fall, on the map and between harmless and harmful, and
    whether the model refused them."""
    rows = [
        row
        for row in read_jsonl(run.path("verdicts.jsonl"))
        if row["kind"] == "borderline" and row["condition"] == "base"
    ]
    rows = rows[: len(run.prompts.borderline["test"])]  # the first reply to each
    prompts: Sequence[Prompt] = run.prompts.borderline["test"]
    if not prompts:
        return []
    vectors = residual_stream(
        run.lm,
        texts(prompts),
        [layer],
        batch_size=run.config.batch_size,
        **token_read(run, texts(prompts)),
    )[:, 0]
    places = places_on_sd(vectors.double().numpy(), harmful_mean, harmless_mean)
    return [
        {
            "prompt": prompt.text,
            "neuron": int(neuron),
            "place": round(float(place), 4),
            "refused": row["verdict"] == Verdict.REFUSED,
        }
        for prompt, neuron, place, row in zip(
            prompts, som.predict(vectors), places, rows, strict=True
        )
        if row["verdict"] != Verdict.MISSING
    ]
