"""Replies of the model as it is, without SD, and without the chosen directions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from torch import Tensor

from somatlas.directions.direction_set import DirectionSet
from somatlas.measures.drift import MORE_REPLY_TOKENS, REPLY_TOKENS, Drift
from somatlas.errors import InputError
from somatlas.evaluation.evaluation import CONDITIONS, Completion, read_completions
from somatlas.files import lines_of, read_json, read_text, write_json, write_jsonl
from somatlas.models.generation import generate
from somatlas.ablation import Projection
from somatlas.judges.registry import endpoint
from somatlas.completions.kept import KeptReplies
from somatlas.measures.leak import leak
from somatlas.models.language_model import LanguageModel
from somatlas.progress import Advance, progress
from somatlas.prompts import Prompt
from somatlas.prompts.prompt_set import spread, texts
from somatlas.models.reasoning import Parted
from somatlas.completions.cache import ReplyStore, ServedReplies, model_key
from somatlas.models.reply import Reply
from somatlas.runs.folder import Run, ranks_within
from somatlas.models.sampling import Sampling, server_seeds

_DRIFT_PROMPTS = 32  # harmless test prompts whose replies' KL is measured


@dataclass(frozen=True)
class _Asked:
    """One test prompt as it is put to the model."""

    kind: str
    prompt: Prompt
    system: str | None
    sample: int


def ablate_stage(run: Run) -> None:
    """Completions of every condition; those finished before an interruption stay."""
    run.needs("map")
    ranks, vectors = chosen_directions(run)
    projections = conditions(run, vectors)
    asked = _asked(run)
    if run.stages.get("ablate", {}).get("ranks", ranks) != ranks:  # the search went on since
        run.path("completions/md.jsonl").unlink(missing_ok=True)
        _served_path(run, "md").unlink(missing_ok=True)
    run.begin("ablate", ranks=ranks)
    with progress("ablate", len(asked) * len(CONDITIONS)) as advance:
        for condition, projection in projections.items():
            path = run.path(f"completions/{condition}.jsonl")
            if path.exists():  # finished before an interruption
                advance(len(asked))
                continue
            replies = _replies(run, condition, projection, asked, advance)
            write_jsonl(path, map(asdict, replies))
            _served_path(run, condition).unlink(missing_ok=True)
    write_json(run.path("ablate.json"), {"ranks": ranks, **_effects(run, projections)})


def conditions(run: Run, vectors: Tensor) -> dict[str, Projection | None]:
    """The edit of each condition."""
    single = DirectionSet.load(run.path("single_direction.safetensors"))
    return {
        "base": None,
        "sd": Projection(single.vectors),
        "md": Projection(vectors, run.config.mode),
    }


def harmless_drift(run: Run, tokens: int = REPLY_TOKENS) -> Drift:
    """Drift on the first tokens of the unchanged model's own replies to harmless test prompts.

    Of several replies to a prompt the first counts, under the system prompt it was made with.
    """
    rows = read_completions(run.path("completions/base.jsonl"))
    own = [c for c in rows if c.kind == "harmless"]
    own = [c for c in own if (c.system, c.sample) == (own[0].system, 0)]
    own = spread(own, _DRIFT_PROMPTS)
    several = run.config.test_systems is not None
    lm = replace(run.lm, system=own[0].system) if several and own else run.lm
    return Drift(lm, [c.prompt for c in own], [c.reply for c in own], run.config.batch_size, tokens)


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


def _asked(run: Run) -> list[_Asked]:
    """Every test prompt, under every system prompt, as often as replies are asked for."""
    kinds = {
        "harmful": run.prompts.positive["test"],
        "harmless": run.prompts.negative["test"],
        "borderline": run.prompts.borderline["test"],
    }
    systems: Sequence[str | None] = [run.config.system]
    if run.config.test_systems is not None:
        systems = system_prompts(Path(run.config.test_systems))
    return [
        _Asked(kind, prompt, system, sample)
        for system in systems
        for sample in range(run.config.samples)
        for kind, prompts in kinds.items()
        for prompt in prompts
    ]


def harmful_replies(run: Run, projection: Projection | None, advance: Advance) -> list[Completion]:
    """Replies to the harmful test prompts under an edit, asked for as the conditions' are."""
    harmful = [one for one in _asked(run) if one.kind == "harmful"]
    return _replies(run, "", projection, harmful, advance)


def system_prompts(path: Path) -> list[str]:
    """The different system prompts of a file, one a line; raises InputError where there is none."""
    systems = list(
        dict.fromkeys(line.strip() for line in lines_of(read_text(path, "file of system prompts")))
    )
    if not systems:
        raise InputError(f"file of system prompts {path} holds none: one a line")
    return systems


def _replies(
    run: Run,
    condition: str,
    projection: Projection | None,
    asked: Sequence[_Asked],
    advance: Advance,
) -> list[Completion]:
    served = (run.config.reply_models or {}).get(condition)
    kept = ServedReplies(_served_path(run, condition))
    parted: list[Parted] = []
    for system in dict.fromkeys(one.system for one in asked):
        prompts = [one.prompt.text for one in asked if one.system == system]
        if served is not None:
            parted += _served(run, served, kept, prompts, system, advance)
        else:
            lm = replace(run.lm, system=system)
            parted += _generated(run, lm, projection, prompts, advance)
    several = run.config.test_systems is not None
    return [
        Completion(
            one.kind,
            one.prompt.category,
            one.prompt.text,
            said.answer,
            said.reasoning,
            (one.system or "") if several else "",
            one.sample,
            said.ended,
        )
        for one, said in zip(asked, parted, strict=True)
    ]


def _generated(
    run: Run,
    lm: LanguageModel,
    projection: Projection | None,
    prompts: Sequence[str],
    advance: Advance,
) -> list[Parted]:
    c = run.config
    sampling = Sampling(c.temperature, c.top_p, c.seed) if c.temperature > 0 else None

    def make(kept: KeptReplies) -> list[Reply]:
        with lm.ablate(projection):
            return generate(
                lm,
                prompts,
                max_new_tokens=c.test_tokens,
                batch_size=c.batch_size,
                sampling=sampling,
                advance=advance,
                done=kept.known(),
                keep=kept.keep,
            )

    key = {**model_key(lm, projection, prompts), "tokens": c.test_tokens}
    if sampling is not None:
        key["sampling"] = asdict(sampling)
    replies = ReplyStore(run.folder.parent / ".replies").get(key, prompts, make)
    opened = lm.opens_reasoning(prompts[0])
    return [
        lm.part_reasoning(reply, opened=opened)._replace(ended=reply.ended) for reply in replies
    ]


def _served_path(run: Run, condition: str) -> Path:
    return run.path(f"completions/{condition}.served.jsonl")


def _served(
    run: Run,
    model: str,
    kept: ServedReplies,
    prompts: Sequence[str],
    system: str | None,
    advance: Advance,
) -> list[Parted]:
    """Replies of a model on a server, at the run's temperature; what is kept is not asked again."""
    c = run.config
    server = endpoint(c, model)
    head = [{"role": "system", "content": system}] if system else []

    def reply(one: tuple[str, int]) -> Parted | None:
        prompt, seed = one
        messages = [*head, {"role": "user", "content": prompt}]

        def ask() -> Parted | None:
            return server.ask(
                messages, c.test_tokens, temperature=c.temperature, top_p=c.top_p, seed=seed
            )

        key = [server.url, model, messages, c.test_tokens, c.temperature, c.top_p, seed]
        said = kept.get(key, ask)
        advance(1)
        return said

    made = server.each(reply, list(zip(prompts, server_seeds(prompts, c.seed), strict=True)))
    replies = [said for said in made if said is not None]
    if len(replies) < len(made):
        how = ", ".join(f"{name} {count}" for name, count in server.failures.items())
        raise InputError(
            f"{server.url} gave no reply of {model!r} to {len(made) - len(replies)} of "
            f"{len(made)} prompts ({how}): what it gave is kept, see to the server and run it again"
        )
    return replies


def _effects(run: Run, projections: dict[str, Projection | None]) -> dict[str, object]:
    """What each edit does to harmless replies, and how much of it comes back."""
    drift, size = harmless_drift(run, MORE_REPLY_TOKENS), run.config.batch_size
    harmful = texts(run.prompts.positive["test"])
    counts = (REPLY_TOKENS, MORE_REPLY_TOKENS)
    nothing: dict[int, list[float]] = {count: [] for count in counts}
    by_reply = {
        c: nothing if p is None else drift.over_tokens(p, *counts) for c, p in projections.items()
    }
    return {
        **_over_tokens("kl", by_reply, drift, REPLY_TOKENS),
        **_over_tokens(f"kl_{MORE_REPLY_TOKENS}", by_reply, drift, MORE_REPLY_TOKENS),
        "kl_replies": len(drift.prompts),
        "leak": {
            c: 0.0 if p is None else leak(run.lm, harmful, p, size) for c, p in projections.items()
        },
    }


def _over_tokens(
    name: str, by_reply: Mapping[str, Mapping[int, Sequence[float]]], drift: Drift, tokens: int
) -> dict[str, object]:
    """KL over the first tokens of each reply, and how many tokens that was."""
    kl = {c: values[tokens] for c, values in by_reply.items()}
    return {
        name: {c: sum(values) / max(1, len(values)) for c, values in kl.items()},
        f"{name}_by_reply": kl,
        f"{name}_tokens": drift.n_tokens(tokens),
        f"{name}_shorter": drift.n_shorter(tokens),
    }
