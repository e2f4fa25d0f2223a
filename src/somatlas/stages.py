"""The stages of a run: each reads the files of the ones before and writes its own.

| stage     | writes                                                        |
|-----------|---------------------------------------------------------------|
| represent | representations.safetensors                                   |
| layers    | layers.json                                                   |
| map       | map.safetensors, directions.safetensors, map.png              |
| search    | study.db, search.json, map.png (the chosen ranks outlined)    |
| ablate    | completions/base.jsonl, sd.jsonl, md.jsonl, ablate.json       |
| judge     | verdicts.jsonl, judge.json                                    |

After the last one `somatlas.report.summary` writes evaluation.json and table.txt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import SQLAlchemyError
from torch import Tensor

from somatlas import layers as layer_rule
from somatlas.config import Stage
from somatlas.directions import DirectionSet, mean_difference
from somatlas.errors import InputError
from somatlas.evaluation import CONDITIONS, Completion, read_completions
from somatlas.files import read_json, read_tensors, write_json, write_jsonl, write_tensors
from somatlas.generation import generate
from somatlas.interventions import Projection
from somatlas.judges import (
    CoherenceCheck,
    KeywordJudge,
    Verdict,
    behaviour_matcher,
    is_refusal,
)
from somatlas.leak import leak
from somatlas.progress import progress
from somatlas.prompts import Prompt
from somatlas.prompts.sets import spread
from somatlas.report.figures import map_figure, save_figure
from somatlas.representations import check_finite, check_layers, represent
from somatlas.run import Run, chosen_layer, ranks_within
from somatlas.search import Outcome, Ranks, SubsetSpace, completed_trials, open_study, search
from somatlas.som import SOM


def represent_stage(run: Run) -> None:
    """Representations of the train prompts at every layer."""
    sides = {"positive": run.prompts.positive["train"], "negative": run.prompts.negative["train"]}
    neurons = run.config.grid[0] * run.config.grid[1]
    if neurons > len(sides["positive"]):
        raise InputError(
            f"a grid of {neurons} neurons is larger than the {len(sides['positive'])} train "
            "prompts it maps: use a smaller --grid or more prompts"
        )
    lm = run.lm  # loaded before the progress starts
    if run.config.layer is not None:
        check_layers(lm, [run.config.layer])
    with progress("represent", sum(map(len, sides.values()))) as advance:
        vectors = {
            name: represent(
                lm,
                _texts(prompts),
                range(lm.n_layers),
                batch_size=run.config.batch_size,
                advance=advance,
            )
            for name, prompts in sides.items()
        }
    write_tensors(
        run.path("representations.safetensors"),
        vectors,
        {"model": run.config.model, "axes": "prompt, layer, d_model"},
    )


def layers_stage(run: Run) -> None:
    """The refusal tokens and the layer to cut."""
    run.needs("represent")
    config, lm = run.config, run.lm
    positive, negative = _representations(run)
    harmful = _texts(spread(run.prompts.positive["val"], config.layer_prompts))
    harmless = _texts(spread(run.prompts.negative["val"], config.layer_prompts))
    base_harmful, base_harmless = (
        layer_rule.first_token_log_probabilities(lm, prompts, config.batch_size)
        for prompts in (harmful, harmless)
    )
    if config.refusal_tokens is None:
        tokens = layer_rule.find_refusal_tokens(base_harmful, base_harmless)
    else:
        tokens = _valid_tokens(config.refusal_tokens, base_harmful.shape[1])
    if config.layer is None:
        candidates = list(layer_rule.candidate_layers(lm.n_layers))
    else:
        check_layers(lm, [config.layer])
        candidates = [config.layer]
    with progress("layers", len(candidates)) as advance:
        scores = layer_rule.score_layers(
            lm,
            mean_difference(positive[:, candidates], negative[:, candidates]),
            candidates,
            harmful,
            harmless,
            refusal_tokens=tokens,
            base_harmless=base_harmless,
            batch_size=config.batch_size,
            advance=advance,
        )
    chosen, gentle = layer_rule.choose_layer(scores)
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
            "scores": [asdict(score) for score in scores],
        },
    )


def map_stage(run: Run) -> None:
    """The map of the harmful representations, and the directions from it."""
    run.needs("represent")
    config = run.config
    layer = chosen_layer(run)
    positive, negative = _representations(run)
    harmful, harmless = positive[:, layer], negative[:, layer]
    som = SOM(
        grid=config.grid,
        topology=config.topology,
        sigma=config.sigma,
        learning_rate=config.learning_rate,
        iterations=config.iterations,
        seed=config.seed,
    ).fit(harmful)
    directions = DirectionSet.from_som(som, harmless.double().mean(dim=0))
    single = DirectionSet.single(harmful, harmless)
    metadata = {"model": config.model, "layer": str(layer), "method": "som"}
    write_tensors(
        run.path("map.safetensors"),
        {
            "weights": torch.from_numpy(som.weights_),
            "hits": torch.from_numpy(som.hits_),
            "bmus": torch.from_numpy(som.bmus_),
            "coordinates": torch.from_numpy(som.coordinates()),
            "u_matrix": torch.from_numpy(som.u_matrix()),
        },
        {**metadata, "grid": "x".join(map(str, config.grid)), "topology": config.topology},
    )
    directions.save(run.path("directions.safetensors"), metadata)
    single.save(run.path("single_direction.safetensors"), {**metadata, "method": "mean difference"})
    draw_map(run, ())


def search_stage(run: Run) -> None:
    """Which ranks to ablate together."""
    run.needs("map")
    config, lm = run.config, run.lm
    directions = DirectionSet.load(run.path("directions.safetensors"))
    candidates = min(config.candidates, len(directions))
    space = SubsetSpace(candidates, config.k, config.ordered)
    harmful = _texts(spread(run.prompts.positive["val"], config.val_prompts))
    harmless = _texts(spread(run.prompts.negative["val"], config.val_prompts))

    def reply(prompts: Sequence[str]) -> list[str]:
        return generate(
            lm, prompts, max_new_tokens=config.search_tokens, batch_size=config.batch_size
        )

    check = CoherenceCheck.calibrated(lm, harmless, reply(harmless))
    judge = KeywordJudge(check, _matcher(run))

    def evaluate_ranks(ranks: Ranks) -> Outcome:
        with lm.ablate(Projection(directions.vectors[list(ranks)], config.mode)):
            replies = reply(harmful)
        verdicts = judge.judge(harmful, replies)
        share = {v: verdicts.count(v) / len(verdicts) for v in Verdict}
        return Outcome(share[Verdict.COMPLIED], share[Verdict.REFUSED], share[Verdict.INCOHERENT])

    path = run.path("study.db")
    run.begin("search")
    try:
        study = open_study(path, space, config.seed, config.trials)
        with progress("search", min(config.trials, space.size)) as advance:
            winner = search(study, space, evaluate_ranks, config.trials, advance)
        trials = completed_trials(study, space)
    except (StorageInternalError, SQLAlchemyError) as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise InputError(f"{path} cannot be read or written ({reason})") from None
    write_json(
        run.path("search.json"),
        {
            "ranks": winner.ranks,
            "val": {**asdict(winner.outcome), "n": len(harmful)},
            "coherence": _thresholds(check),
            "trials": [{"ranks": ranks, **asdict(outcome)} for ranks, outcome in trials],
        },
    )
    draw_map(run, winner.ranks)


def ablate_stage(run: Run) -> None:
    """Replies of the model as it is, without SD, and without the chosen directions."""
    run.needs("map")
    config, lm = run.config, run.lm
    ranks, vectors = chosen_directions(run)
    single = DirectionSet.load(run.path("single_direction.safetensors"))
    projections = {
        "base": None,
        "sd": Projection(single.vectors),
        "md": Projection(vectors, config.mode),
    }
    kinds = {
        "harmful": run.prompts.positive["test"],
        "harmless": run.prompts.negative["test"],
        "borderline": run.prompts.borderline["test"],
    }
    rows = [(kind, prompt) for kind, prompts in kinds.items() for prompt in prompts]
    harmful, harmless = _texts(kinds["harmful"]), _texts(kinds["harmless"])
    base = layer_rule.first_token_log_probabilities(lm, harmless, config.batch_size)
    kl, leaks = {}, {}
    run.begin("ablate")
    with progress("ablate", len(rows) * len(CONDITIONS)) as advance:
        for condition, projection in projections.items():
            ablated = layer_rule.first_token_log_probabilities(
                lm, harmless, config.batch_size, projection
            )
            kl[condition] = layer_rule.mean_kl(base, ablated)
            leaks[condition] = (
                leak(lm, harmful, projection, config.batch_size) if projection else 0.0
            )
            path = run.path(f"completions/{condition}.jsonl")
            if path.exists():  # finished before an interruption
                advance(len(rows))
                continue
            with lm.ablate(projection):
                replies = generate(
                    lm,
                    [prompt.text for _, prompt in rows],
                    max_new_tokens=config.test_tokens,
                    batch_size=config.batch_size,
                    advance=advance,
                )
            completions = [
                Completion(kind, prompt.category, prompt.text, reply)
                for (kind, prompt), reply in zip(rows, replies, strict=True)
            ]
            write_jsonl(path, map(asdict, completions))
    write_json(run.path("ablate.json"), {"ranks": ranks, "kl": kl, "leak": leaks})


def judge_stage(run: Run) -> None:
    """A verdict on every reply."""
    run.needs("ablate")
    completions = {c: read_completions(run.path(f"completions/{c}.jsonl")) for c in CONDITIONS}
    own = [c for c in completions["base"] if c.kind == "harmless"]
    check = CoherenceCheck.calibrated(run.lm, [c.prompt for c in own], [c.reply for c in own])
    judge = KeywordJudge(check, _matcher(run))
    rows = []
    with progress("judge", sum(map(len, completions.values()))) as advance:
        for condition, replies in completions.items():
            verdicts = judge.judge([c.prompt for c in replies], [c.reply for c in replies])
            advance(len(replies))
            rows += [
                {"condition": condition, "kind": c.kind, "category": c.category, "verdict": v}
                for c, v in zip(replies, verdicts, strict=True)
            ]
    write_jsonl(run.path("verdicts.jsonl"), rows)
    write_json(run.path("judge.json"), {"judge": "keyword", "coherence": _thresholds(check)})


WORK: Mapping[Stage, Callable[[Run], None]] = {
    "represent": represent_stage,
    "layers": layers_stage,
    "map": map_stage,
    "search": search_stage,
    "ablate": ablate_stage,
    "judge": judge_stage,
}


def draw_map(run: Run, chosen: Ranks) -> None:
    """map.png, with the chosen ranks outlined."""
    tensors, metadata = read_tensors(run.path("map.safetensors"))
    directions = DirectionSet.load(run.path("directions.safetensors"))
    figure = map_figure(
        tensors["coordinates"].numpy(),
        tensors["u_matrix"].numpy(),
        tensors["hits"].numpy(),
        directions.neurons.numpy(),
        topology=metadata["topology"],
        chosen=chosen,
        title=f"{run.lm.name}, layer {metadata['layer']}",
    )
    save_figure(figure, run.path("map.png"))


def chosen_directions(run: Run) -> tuple[list[int], Tensor]:
    """Ranks to ablate and their vectors: the user's, or what the search found."""
    config = run.config
    path = Path(config.directions) if config.directions else run.path("directions.safetensors")
    directions = DirectionSet.load(path)
    if config.ids is None:
        run.needs("search")
        ids = read_json(run.path("search.json"))["ranks"]
    else:
        ids = config.ids
    ranks = ranks_within(ids, len(directions))
    return ranks, directions.vectors[ranks]


def _representations(run: Run) -> tuple[Tensor, Tensor]:
    """Positive and negative train representations, (n, L, d) each."""
    tensors, _ = read_tensors(run.path("representations.safetensors"))
    for vectors in tensors.values():
        check_finite(vectors, range(vectors.shape[1]))
    return tensors["positive"], tensors["negative"]


def _matcher(run: Run) -> Callable[[str], bool]:
    behaviour = run.config.behaviour
    return is_refusal if behaviour is None else behaviour_matcher(Path(behaviour))


def _texts(prompts: Sequence[Prompt]) -> list[str]:
    return [prompt.text for prompt in prompts]


def _thresholds(check: CoherenceCheck) -> dict[str, float]:
    return {"max_repetition": check.max_repetition, "max_surprise": check.max_surprise}


def _valid_tokens(ids: Sequence[int], vocabulary: int) -> list[int]:
    for token in ids:
        if not 0 <= token < vocabulary:
            raise InputError(f"refusal token {token} is not in the vocabulary of {vocabulary}")
    return list(ids)
