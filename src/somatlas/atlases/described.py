"""What each neuron of a map stands for, and where borderline prompts lie on it."""

from __future__ import annotations

from typing import Any

import numpy as np

from somatlas.atlases.neurons import category_information, describe_neurons
from somatlas.atlases.over_refusal import over_refusal, places_on_sd
from somatlas.atlases.plane import space
from somatlas.atlases.subject import Mapped, Subject
from somatlas.judges.verdict import Verdict
from somatlas.measures.layer_rule import first_token_log_probabilities, refusal_scores
from somatlas.prompts.prompt_set import spread, texts

_SCORED = 64  # train prompts whose refusal score is measured


def described(subject: Subject, mapped: Mapped) -> dict[str, Any]:
    """What an atlas has of maps alone (`somatlas.atlases.record.Atlas`)."""
    prompts, som = subject.train.harmful, mapped.som
    scores = np.full(len(prompts), np.nan)
    places = spread(range(len(prompts)), _SCORED)
    if subject.refusal_tokens:
        log_p = first_token_log_probabilities(
            subject.lm, [prompts[i].text for i in places], subject.asking.batch_size
        )
        found = refusal_scores(log_p, subject.refusal_tokens, subject.epsilon)
        scores[places] = found.numpy()
    categories = [prompt.category for prompt in prompts]
    edges = som.edges() if mapped.ordered else np.empty((0, 2), dtype=np.int64)
    neurons = describe_neurons(
        som.seen(subject.harmful), som.weights_, som.bmus_, texts(prompts), categories, scores
    )
    ranks = {int(neuron): rank for rank, neuron in enumerate(subject.directions.neurons)}
    border = _borderline(subject, mapped)
    for neuron in neurons:
        own = [row for row in border if row["neuron"] == neuron["neuron"]]
        neuron["rank"] = ranks.get(neuron["neuron"])
        neuron["borderline"] = len(own)
        neuron["borderline_refused"] = sum(row["refused"] for row in own)
    forms = [prompt.syntax for prompt in prompts]
    return {
        "neurons": neurons,
        "information": category_information(som.bmus_, categories, forms, subject.seed),
        "borderline": border,
        "over_refusal": over_refusal(
            [row["place"] for row in border], [row["refused"] for row in border]
        ),
        "space": space(som.seen(subject.harmful), som.seen(subject.harmless), som.weights_, edges),
    }


def _borderline(subject: Subject, mapped: Mapped) -> list[dict[str, Any]]:
    """Where the borderline test prompts fall, on the map and between harmless and harmful, and
    whether the model refused them."""
    prompts = subject.test.borderline
    rows = subject.borderline[: len(prompts)]  # the first reply to each
    if not prompts:
        return []
    vectors = subject.represent(texts(prompts))
    means = subject.harmful.mean(axis=0), subject.harmless.mean(axis=0)
    places = places_on_sd(vectors.double().numpy(), *means)
    found = zip(prompts, mapped.som.predict(vectors), places, rows, strict=True)
    return [
        {
            "prompt": prompt.text,
            "neuron": int(neuron),
            "place": round(float(place), 4),
            "refused": row.verdict == Verdict.REFUSED,
        }
        for prompt, neuron, place, row in found
        if row.verdict != Verdict.MISSING
    ]
