"""Replies of the model as it is, without SD, without the chosen directions, and of controls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from torch import Tensor

from somatlas.ablation import Projection
from somatlas.completions.cache import ReplyStore, ServedReplies
from somatlas.completions.completion import Completion, read_completions
from somatlas.completions.from_server import Sender
from somatlas.completions.make import Asked, Generator, Replies, asked, completions
from somatlas.directions.direction_set import DirectionSet
from somatlas.errors import InputError
from somatlas.evaluation.effects import effects, harmless_drift
from somatlas.files import lines_of, read_text, write_jsonl
from somatlas.measures.drift import MORE_REPLY_TOKENS, REPLY_TOKENS, Drift
from somatlas.models.sampling import Sampling
from somatlas.models.served import Endpoint
from somatlas.progress import Advance, progress
from somatlas.representations.store import RepresentationStore
from somatlas.runs.contents import Contents
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
            _path(run, condition).unlink(missing_ok=True)
            _served_path(run, condition).unlink(missing_ok=True)
    run.begin("ablate", ranks=ranks)
    with progress("ablate", len(wanted) * len(projections)) as advance:
        for condition, projection in projections.items():
            path = _path(run, condition)
            if path.exists():  # finished before an interruption
                advance(len(wanted))
                continue
            replies = completions(
                wanted,
                _replies(run, condition, projection, advance),
                name_systems=_names_systems(run),
            )
            write_jsonl(path, map(asdict, replies))
            _served_path(run, condition).unlink(missing_ok=True)
    found = effects(
        run.lm,
        projections,
        drift_of(run, MORE_REPLY_TOKENS),
        run.prompts.positive["test"],
        ranks=ranks,
        batch_size=run.config.batch_size,
    )
    found.write(run.folder)


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


def drift_of(run: Run, tokens: int = REPLY_TOKENS) -> Drift:
    """Drift on the unchanged model's own replies to harmless test prompts."""
    return harmless_drift(
        run.lm,
        read_completions(_path(run, "base")),
        batch_size=run.config.batch_size,
        tokens=tokens,
        name_systems=_names_systems(run),
    )


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
    replies = _replies(run, "", projection, advance)
    return completions(wanted, replies, name_systems=_names_systems(run))


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


def _replies(run: Run, condition: str, projection: Projection | None, advance: Advance) -> Replies:
    """Of the model on this machine, or of one on a server where the condition names one."""
    c = run.config
    served = (c.reply_models or {}).get(condition)
    if served is None:
        sampling = Sampling(c.temperature, c.top_p, c.seed) if c.temperature > 0 else None
        store = ReplyStore(run.folder.parent / ".replies")
        generator = Generator(run.lm, c.test_tokens, c.batch_size, sampling, store)
        return generator.under(projection, advance)
    kept = ServedReplies(_served_path(run, condition))
    sampling = Sampling(c.temperature, c.top_p, c.seed)
    return Sender(reply_server(c, served), c.test_tokens, sampling, kept).replies(advance)


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
