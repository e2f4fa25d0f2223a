"""Replies of the model as it is, without SD, without the chosen directions, and of controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor

from somatlas.ablation import Projection
from somatlas.completions.cache import ServedReplies
from somatlas.completions.completion import Completion, read_completions
from somatlas.completions.from_server import Sender
from somatlas.completions.make import Asked, Replies, asked, completions
from somatlas.directions.direction_set import DirectionSet
from somatlas.errors import InputError
from somatlas.evaluation.effects import (
    ConditionEffect,
    KeptDrift,
    condition_effect,
    effects_of,
)
from somatlas.files import lines_of, read_text, remove, write_jsonl
from somatlas.fleet import Work, deal
from somatlas.measures.drift import MORE_REPLY_TOKENS, REPLY_TOKENS
from somatlas.models.sampling import Sampling
from somatlas.models.served import Endpoint
from somatlas.progress import Advance, progress
from somatlas.prompts.prompt_set import texts
from somatlas.representations.store import RepresentationStore
from somatlas.runs.contents import Contents
from somatlas.runs.dealt_replies import Wanted, dealt_replies
from somatlas.runs.folder import Run, chosen_layer, ranks_within
from somatlas.runs.settings import Config
from somatlas.runs.stages.map_stage import contrast_of, make_method


def ablate_stage(run: Run) -> None:
    """Completions of every condition; those finished before an interruption stay."""
    run.needs("map")
    ranks, vectors = chosen_directions(run)
    projections = conditions(run, vectors)
    wanted = _asked(run)
    if run.stages.get("ablate", {}).get("ranks", ranks) != ranks:  # the search went on since
        for condition in [name for name in projections if name not in ("base", "sd")]:
            remove(_path(run, condition))
            remove(_served_path(run, condition))
    run.begin("ablate", ranks=ranks)
    missing = {name: p for name, p in projections.items() if not _path(run, name).exists()}
    with progress("ablate", len(wanted) * len(projections)) as advance:
        advance(len(wanted) * (len(projections) - len(missing)))  # finished before an interruption
        for condition, replies in _completions(run, wanted, missing, advance).items():
            write_jsonl(_path(run, condition), map(asdict, replies))
            remove(_served_path(run, condition))
    of = EffectsOf(
        kept_drift(run, MORE_REPLY_TOKENS), texts(run.prompts.positive["test"]), projections
    )
    found = run.fleet.prepared(effect_work, of).each(deal(list(projections), 1))
    measured = {name: one for name, (one,) in zip(projections, found, strict=True)}
    effects_of(measured, ranks).write(run.folder)


@dataclass(frozen=True)
class EffectsOf:
    """What effects are measured on: harmless replies, harmful prompts, and every edit."""

    drift: KeptDrift
    prompts: list[str]
    projections: dict[str, Projection | None]


def effect_work(run: Run, of: EffectsOf) -> Work[str, ConditionEffect]:
    """What conditions do beside their replies."""
    drift = of.drift.on(run.lm, run.config.batch_size)

    def work(names: Sequence[str], _advance: Advance) -> list[ConditionEffect]:
        size = run.config.batch_size
        return [
            condition_effect(run.lm, of.projections[name], drift, of.prompts, size)
            for name in names
        ]

    return work


def conditions(run: Run, vectors: Tensor) -> dict[str, Projection | None]:
    """The edit of each condition: the model as it is, SD, the chosen directions, and as many of
    each control's."""
    mode = run.config.mode
    return {
        "base": None,
        "sd": Projection(Contents(run.folder).single.vectors),
        "md": Projection(vectors, mode),
        **{name: Projection(own, mode) for name, own in _controls(run, len(vectors)).items()},
    }


def _controls(run: Run, count: int) -> dict[str, Tensor]:
    """The first directions of each control method, of the representations that MD is made of."""
    if not run.config.controls:
        return {}
    layer = chosen_layer(run)
    store = RepresentationStore.open(run.path("representations"))
    contrast = contrast_of(run, store, layer, store.at("positive", layer))
    found = {}
    for name in run.config.controls:
        made = make_method(run.config, name).fit(
            contrast.harmful, contrast.harmless, context=contrast.context
        )
        found[name] = made.directions_.vectors[:count]
    return found


def kept_drift(run: Run, tokens: int = REPLY_TOKENS) -> KeptDrift:
    """The unchanged model's own replies to harmless test prompts that drift is measured on."""
    base = read_completions(_path(run, "base"))
    return KeptDrift.of(base, tokens, name_systems=_names_systems(run))


def chosen_directions(run: Run) -> tuple[list[int], Tensor]:
    """Ranks to ablate and their vectors: the user's, or what the search found."""
    config, contents = run.config, Contents(run.folder)
    given = config.directions
    directions = contents.directions if given is None else DirectionSet.load(Path(given))
    if config.ids is None:
        run.needs("search")
        ids: Sequence[int] = contents.search.ranks
    else:
        ids = config.ids
    ranks = ranks_within(ids, len(directions))
    return ranks, directions.vectors[ranks]


def harmful_replies(run: Run, projection: Projection | None, advance: Advance) -> list[Completion]:
    """Replies to the harmful test prompts under an edit, asked for as the conditions' are."""
    wanted = [one for one in _asked(run) if one.kind == "harmful"]
    return _completions(run, wanted, {"": projection}, advance)[""]


def system_prompts(path: Path) -> list[str]:
    """The different system prompts of a file, one a line; raises InputError where there is none."""
    systems = list(
        dict.fromkeys(line.strip() for line in lines_of(read_text(path, "file of system prompts")))
    )
    if not systems:
        raise InputError(f"file of system prompts {path} holds none: one a line")
    return systems


def _asked(run: Run) -> list[Asked]:
    systems: Sequence[str | None] = [run.config.system]
    if run.config.test_systems is not None:
        systems = system_prompts(Path(run.config.test_systems))
    return asked(run.prompts.test, systems, run.config.samples)


def _names_systems(run: Run) -> bool:
    return run.config.test_systems is not None


def _completions(
    run: Run, wanted: Sequence[Asked], edits: Mapping[str, Projection | None], advance: Advance
) -> dict[str, list[Completion]]:
    """What is asked for, of each condition: of the model of this run, or of one on a server where
    the condition names one."""
    c = run.config
    served = {name: model for name, model in (c.reply_models or {}).items() if name in edits}
    systems = list(dict.fromkeys(one.system for one in wanted))
    own = [(name, system) for name in edits if name not in served for system in systems]
    asked_for = [
        Wanted(edits[name], system, [one.prompt.text for one in wanted if one.system == system])
        for name, system in own
    ]
    sampling = Sampling(c.temperature, c.top_p, c.seed) if c.temperature > 0 else None
    made = dict(zip(own, dealt_replies(run, asked_for, sampling, advance), strict=True))

    def replies(condition: str) -> Replies:
        if condition not in served:
            return lambda _prompts, system: made[condition, system]
        kept = ServedReplies(_served_path(run, condition))
        server = reply_server(c, served[condition])
        how = Sampling(c.temperature, c.top_p, c.seed)
        return Sender(server, c.test_tokens, how, kept).replies(advance)

    return {
        name: completions(wanted, replies(name), name_systems=_names_systems(run)) for name in edits
    }


def _path(run: Run, condition: str) -> Path:
    return run.path(f"completions/{condition}.jsonl")


def reply_server(config: Config, model: str) -> Endpoint:
    """The server of a model that makes replies in place of the run's."""
    assert config.endpoint_url is not None  # the configuration is checked for it
    return Endpoint(
        config.endpoint_url,
        model,
        timeout_s=config.endpoint_timeout,
        concurrency=config.endpoint_concurrency,
    )


def _served_path(run: Run, condition: str) -> Path:
    return run.path(f"completions/{condition}.served.jsonl")
