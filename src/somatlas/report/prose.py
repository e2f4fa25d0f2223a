"""What the page says of the map, the search and the atlas: sentences around their numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from somatlas.directions.methods import FLOORS


def map_text(errors: Mapping[str, Any] | None) -> str:
    """The map's errors beside what chance gives, and whether its grid means anything."""
    if errors is None:
        return (
            "Whether neighbours on this map are neighbours in space was not measured, so that "
            "nothing of its neighbourhood is drawn."
        )
    text = (
        f"Quantization error, the mean distance of a prompt to its neuron: "
        f"{errors['quantization']:.2f}"
    )
    chance, own = errors["chance"], errors["rank_correlation"]
    if chance is None:
        return f"{text}. A single neuron has no neighbours."
    text += (
        f". Topographic error, the share of prompts whose two nearest neurons are no neighbours on "
        f"the grid: {errors['topographic']:.0%}, where neurons put on it at random have "
        f"{_among(chance['topographic'], '.0%')}"
    )
    if own is not None:
        text += (
            f"; distances on the grid and in space have rank correlation {own:.2f}, at random "
            f"{_among(chance['rank_correlation'], '.2f')}"
        )
    text += f" (mean and 95 % of {chance['permutations']} permutations). "
    if errors["ordered"]:
        return text + "So neighbours on the map are neighbours in space."
    return text + (
        "Not both are better than chance, so the map's neighbourhood is void: no shade and no line "
        "of the grid is drawn, and a neuron's place says nothing. A wider --sigma may keep it."
    )


def _among(chance: Mapping[str, float], form: str) -> str:
    mean, low, high = (format(chance[name], form) for name in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


def information_text(information: Mapping[str, Any] | None) -> str:
    """What the neurons tell of the prompts' categories; empty where there are none."""
    if information is None:
        return ""
    by_form = information["shuffled"] == "by form"
    how = "within prompts of the same grammatical form" if by_form else "freely"
    return (
        f"The neuron tells {information['bits']:.2f} bits of the prompt's category "
        f"({information['chance']:.2f} by chance, p = {information['p']:.3f}; categories shuffled "
        f"{how})."
    )


def search_text(search: Mapping[str, Any]) -> str:
    """How many sets were tried, which were allowed, and how the winner was chosen."""
    trials, selection, allowed = search["trials"], search["selection"], search["max_kl"]
    sets, prompts = _count(len(trials), "set"), _count(search["val"]["n"], "val prompt")
    text = f"The search tried {sets} of directions on {prompts}"
    if pruned := sum(trial["pruned"] for trial in trials):
        text += f", {pruned} of them ended early because they could not come among the best"
    text += ". "
    if allowed and allowed["kept"]:
        text += (
            f"The winner is of the {allowed['kept']} that kept KL at or below "
            f"{allowed['limit']:g} nats a token. "
        )
    elif allowed:
        text += (
            f"No trial kept KL at or below {allowed['limit']:g} nats a token, so the gentlest was "
            "taken. "
        )
    if selection is None:
        return text + (
            "There were too few other val prompts to score the best again: the val score of the "
            "winner, the highest of many, tends to promise too much."
        )
    again = f"scored again on {selection['n']} prompts that the search never saw"
    if len(selection["contenders"]) == 1:
        return f"{text}It was {again}."
    gap = 100 * selection["optimism"]
    found = f"here it did by {gap:.0f} points" if gap > 0 else "here it did not"
    return (
        f"{text}The best were {again}, and the winner was chosen there: the val score of a winner, "
        f"the highest of many, tends to promise too much ({found})."
    )


_MEASURES = {
    "compactness": "spread of the harmful cluster",
    "harmless_compactness": "of the harmless one",
    "ratio": "harmful over harmless",
    "distance": "distance of the centroids",
}


def relations_text(relations: Mapping[str, Any], steps: Sequence[Mapping[str, Any]]) -> str:
    """How both clusters change over the directions ablated, and how that goes with ASR."""
    first, last = steps[0], steps[-1]
    text = (
        f"From k = {first['k']} to {last['k']} the harmful cluster's spread (mean distance to its "
        f"centroid) goes from {first['compactness']:.1f} to {last['compactness']:.1f}, the "
        f"harmless one's from {first['harmless_compactness']:.1f} to "
        f"{last['harmless_compactness']:.1f}"
    )
    if first["ratio"] is not None and last["ratio"] is not None:
        text += f", their ratio from {first['ratio']:.2f} to {last['ratio']:.2f}"
    parts = [
        f"{words} r = {r:.2f}"
        for name, words in _MEASURES.items()
        if (r := relations[name]) is not None
    ]
    if not parts:
        return f"{text}. Too few steps, or too alike, to correlate geometry with ASR."
    return (
        f"{text}. Correlation with ASR over {len(steps)} steps: {'; '.join(parts)}. The steps are "
        "nested, each ablating what the one before it did, so no interval is given; and where the "
        "mean difference is among what is ablated, the distance falls whatever the replies do."
    )


def stability_text(found: Mapping[str, Mapping[str, Any]]) -> str:
    """How alike repeats of the run's own method, the first of `found`, are, and what may be
    concluded: from what they share beyond SD, against the floor that shares most."""
    name = next(iter(found))
    own, k = found[name]["samples"], found[name]["k"]
    angle, cosine = own["largest_angle"]["mean"], own["matched_cosine"]["mean"]
    what = _count(k, "direction")
    which = f"{what} by {name} nearest to the chosen" if found[name].get("nearest") else ""
    text = (
        f"Between 80 % samples of the prompts, each with a seed of its own, the spans of the "
        f"{which or f'first {what} by {name}'} differ by {angle:.0f} degrees at the largest "
        f"principal angle, and matched directions have cosine {cosine:.2f}, whatever their sign"
    )
    rand = own["rand"]["mean"] if own["rand"] else None
    if rand is not None:
        text += f"; the partitions of the prompts agree with an adjusted Rand index of {rand:.2f}"
    if name in FLOORS:
        return text + ". It learns nothing: a floor for other methods."
    floors = _floors_beyond_sd(found)
    if not floors:
        return text + ". What chance would give is not shown: make the atlas again for floors."
    free = found[name]["without_sd"]
    if free is None:
        return text + ". That is the mean difference and nothing else."
    floor = max(floors, key=lambda one: float(floors[one]["matched_cosine"]["mean"]))
    highest = floors[floor]["matched_cosine"]
    least = min(float(one["largest_angle"]["low"]) for one in floors.values())
    shared, turned = free["samples"]["matched_cosine"]["mean"], free["samples"]["largest_angle"]
    text += (
        f". With the mean difference projected out, which all methods share, the cosine is "
        f"{shared:.2f} and the angle {turned['mean']:.0f} degrees; of the floors, which learn "
        f"nothing, {floor} ({FLOORS[floor]}) has most, {highest['mean']:.2f}, and 95 % of its "
        f"pairs less than {highest['high']:.2f}. "
    )
    if shared <= highest["high"]:
        if turned["mean"] >= least:
            return text + (
                "Beyond the mean difference, neither single directions nor their span are more "
                "alike than the floors'."
            )
        return text + (
            "Beyond the mean difference, single directions are no more alike than the floor's: "
            "read the span, not them."
        )
    ranked = own["rank_cosine"] and own["rank_cosine"]["mean"]
    if ranked is not None and ranked < cosine - 0.1:
        text += f"Directions of the same rank have cosine {ranked:.2f}. "
    if angle > 45 or (rand is not None and rand < 0.5) or (ranked is not None and ranked < 0.5):
        return text + (
            "What is shared is real, but the ranks are not the same from sample to sample: say "
            "what a set of directions does, not what one of them means."
        )
    return text + (
        "Other samples of these prompts give much the same directions; that does not make them the "
        "model's own parts, nor say what prompts of another kind would give."
    )


def stability_summary(found: Mapping[str, Mapping[str, Any]]) -> str:
    """The same in one sentence, for the head of the page and the screen."""
    name = next(iter(found))
    cosine = found[name]["samples"]["matched_cosine"]["mean"]
    text = f"Directions from 80 % samples of the prompts agree with a mean cosine of {cosine:.2f}"
    floors, free = _floors_beyond_sd(found), found[name].get("without_sd")
    if name in FLOORS or not floors or free is None:
        return f"{text}."
    shared = free["samples"]["matched_cosine"]["mean"]
    floor = max(floors.values(), key=lambda one: float(one["matched_cosine"]["mean"]))
    most = floor["matched_cosine"]
    verdict = "more" if shared > most["high"] else "no more"
    return (
        f"{text}; with the mean difference projected out {shared:.2f}, {verdict} than directions "
        f"that learn nothing ({most['mean']:.2f}, 95 % under {most['high']:.2f})."
    )


def _floors_beyond_sd(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The floors' agreement over samples without SD, of those that a record has."""
    records = {name: found[name].get("without_sd") for name in FLOORS if name in found}
    return {name: record["samples"] for name, record in records.items() if record}


def over_refusal_text(found: Mapping[str, Any]) -> str:
    """Whether refused borderline prompts lie towards the harmful ones, as an association."""
    n, m = found["refused"], found["answered"]
    text = f"Of {_count(n + m, 'borderline prompt')}, harmless but harmful in sound, the model "
    if not n or not m:
        return text + f"refused {'none' if not n else 'every one'}."
    inside, outside, auc = found["place_refused"], found["place_answered"], found["auc"]
    text += (
        f"refused {n}: on the way from the mean of the harmless prompts (0) to that of the harmful "
        f"ones (1) these lie at {inside:.2f} in the mean, the answered ones at {outside:.2f}. A "
        "refused one lies farther towards the harmful side than an answered one with probability "
        f"{auc:.2f} (0.5 is chance): "
    )
    chance_error = math.sqrt((n + m + 1) / (12 * n * m))  # of the rank-sum statistic
    if abs(auc - 0.5) < 1.96 * chance_error:
        return text + "no more of a difference than so few prompts show by chance."
    if auc < 0.5:
        return text + "looking harmful on this axis does not go with being refused here."
    return text + (
        "over-refusal goes with looking like harmful prompts on this axis, which is an association "
        "and no proof that it is the cause."
    )


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"
