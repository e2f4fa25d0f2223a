"""What can be set: every setting, from which stage on it decides the outcome, its type and default.

Light on purpose: the command's help and completion read this and import no validation library.
`somatlas.runs.settings` makes a validated model of it, `somatlas.runs.setting_sources` says whence
values come, `somatlas.runs.parsing` how lists, pairs and ranges are written.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_type_hints

from somatlas.models.names import DEFAULT_DATE, DEFAULT_MODEL
from somatlas.runs import parsing
from somatlas.runs.declaration import Count, Setting, form_of, listed, of

if TYPE_CHECKING:
    from pydantic import BaseModel  # as which a type checker sees the fields, for Config's sake
else:
    BaseModel = object

Stage = Literal["represent", "layers", "map", "search", "ablate", "judge", "cost", "atlas"]
STAGES: tuple[Stage, ...] = get_args(Stage)
# Settings that may change once their stage is done: it is done again, and no other. Those of judge
# models, and kinds' own, may while --more-judges alone reads them (`Config.redone`).
JUDGE_MODELS = ("judge_template", "judge_template_sha256", "judge_labels")
REDONE: Mapping[Stage, tuple[str, ...]] = {
    "judge": ("more_judges", *JUDGE_MODELS, "judge_settings"),
    "cost": ("perplexity", "perplexity_sha256", "tasks", "task_folder", "task_limit"),
}
# Settings that may name a file, whose content decides as they do.
FILES = (
    "chat_template",
    "behaviour",
    "directions",
    "test_systems",
    "judge_template",
    "perplexity",
)


def _methods() -> list[str]:
    from somatlas.directions.methods import METHODS  # names: no method is imported

    return METHODS.names()


class Fields(BaseModel):
    """The settings, grouped by stage; the paper is arXiv 2511.08379."""

    model: str = of(
        "represent", DEFAULT_MODEL, "embedded name, folder, .gguf file or hub name", form="MODEL"
    )
    seed: int = of("represent", 0, "decides everything that is drawn", ge=0, lt=2**32)

    prompts: Literal["bundled", "paper"] = of(
        "represent", "bundled", "prompt set: the bundled one, or the paper's from the hub"
    )
    positive: str | None = of(
        "represent",
        None,
        "prompts that show the behaviour: a file or hub:NAME, or train=FILE,val=FILE,test=FILE",
        form="FILE",
    )
    negative: str | None = of(
        "represent", None, "prompts that do not: a file or hub:NAME", form="FILE"
    )
    borderline: str | None = of(
        "represent",
        None,
        "prompts that sound harmful and are not: a file or hub:NAME",
        form="FILE",
    )
    column: str | None = of(
        "represent", None, "column of the files that holds the request", form="NAME"
    )
    group: tuple[str, ...] | None = of(
        "represent",
        None,
        "columns whose equal values stay in one split, comma-separated, or none (default: topic, "
        "group, pair, id, where there)",
        parse=parsing.items,
        form="NAME,...",
    )
    train_prompts: Count | None = of(
        "represent", None, "at most this many train prompts a side (default: all)"
    )
    system: str | None = of("represent", None, "system prompt put before every prompt")
    chat_template: str | None = of(
        "represent",
        None,
        "in place of the model's own: chatml, one of its others by name, a Jinja template, or a "
        "file with one",
        form="TEMPLATE",
    )
    thinking: Literal["on", "off"] | None = of(
        "represent", None, "the template's switch for reasoning (default: the template's own)"
    )
    date: str = of(
        "represent",
        DEFAULT_DATE,
        "what a chat template that prints the date is told, so that runs repeat",
        form="YYYY-MM-DD",
        check=parsing.day,
    )
    behaviour: str | None = of(
        "search",
        None,
        "file of regular expressions that mark a reply that shows the behaviour (default: refusal)",
        form="FILE",
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = of(
        "represent",
        "auto",
        "precision; auto: on a GPU the checkpoint's own, on a CPU float32, or bfloat16 for a large "
        "model where the CPU is faster with it",
    )

    layers: tuple[int, ...] | None = of(
        "represent",
        None,
        "layers to keep, as 8-24 or 3,7,12 (default: all)",
        form="LAYERS",
        parse=parsing.ranges,
        check=parsing.known_layers,
    )

    token_position: int = of(
        "represent",
        -1,
        "token of the formatted prompt that is read, counted as Python counts (paper: --token_pos)",
    )
    reply_token: Count | None = of(
        "represent",
        None,
        "read at this token of the model's own greedy reply instead, from 1 (paper: --generate)",
    )

    site: Literal["projection", "residual"] = of(
        "layers",
        "projection",
        "where a norm follows a write, ablate before it, as the paper, or after it",
    )
    tied_head: Literal["keep", "paper"] = of(
        "layers",
        "keep",
        "an output head that shares the embedding's matrix: leave it, or edit it too, as the paper",
    )
    layer: int | None = of("layers", None, "layer to cut (default: chosen by the rule)", ge=0)
    layer_prompts: Count = of("layers", 32, "val prompts a side for the choice of the layer")
    layer_data: Literal["own", "paper"] = of(
        "layers",
        "own",
        "prompts of the layer rule: the run's own, or the paper's 128 + 128 and 32 + 32 from the "
        "hub, without system prompt",
    )
    refusal_tokens: tuple[int, ...] | None = of(
        "layers",
        None,
        "ids of the tokens that open a refusal, comma-separated (default: found)",
        parse=parsing.items,
    )
    refusal_epsilon: float = of(
        "layers", 0.0, "added to p and 1 - p in the refusal score (paper: 1e-8)", ge=0, lt=1
    )

    method: str = of(
        "map",
        "som",
        "what makes the directions: the map, a method to compare it with, or another package's",
        names=_methods,
    )
    method_settings: dict[str, Any] | None = of(
        "map",
        None,
        "the method's own settings, as NAME=VALUE,NAME=VALUE, or a table of a TOML file",
        parse=parsing.pairs,
        validate_default=True,
    )
    draw: int = of(
        "map",
        0,
        "draw the map, or what else is random in the method, anew; the search stays the same",
        ge=0,
        lt=2**32,
    )
    grid: tuple[Count, Count] = of(
        "map", (4, 4), "rows and columns of the map (paper: 4x4)", form="RxC", parse=parsing.grid
    )
    topology: Literal["hexagonal", "rectangular"] = of("map", "hexagonal", "the map's grid")
    sigma: float = of(
        "map", 1.0, "neighbourhood width in grid steps (paper: 0.33, which orders no grid)", gt=0
    )
    learning_rate: float = of("map", 0.01, "first learning rate (paper: 0.01)", gt=0, le=1)
    iterations: Count = of("map", 10_000, "single-sample steps (paper: 10000)")
    scale: Literal["none", "standard", "mask", "winsor"] = of(
        "map",
        "none",
        "what the map sees of coordinates far louder than the others (doctor measures them): all, "
        "each divided by its spread, the loud ones left out, or clipped",
    )

    trials: Count = of("search", 16, "subsets of directions to try (paper: 128 to 512)")
    startup: Count = of(
        "search", 8, "trials drawn at random before any is proposed (paper: a quarter of them)"
    )
    sampler: str | None = of(
        "search",
        None,
        "what proposes the next trial, or another package's (default: surrogate; parzen, as the "
        "paper, with --ordered)",
        form="[surrogate|parzen|random]",
    )
    sampler_settings: dict[str, Any] | None = of(
        "search",
        None,
        "the sampler's own settings, as --method-settings",
        parse=parsing.pairs,
        validate_default=True,
    )
    k: Count = of("search", 3, "directions ablated together (paper: 2 to 7)")
    candidates: Count = of("search", 16, "directions to choose from, by rank (paper: 16)")
    mode: Literal["sequential", "subspace"] = of(
        "search", "sequential", "one after another, as the paper, or the whole span"
    )
    ordered: bool = of("search", False, "search ordered tuples, as the paper, not subsets")
    val_prompts: Count = of("search", 32, "harmful val prompts a trial answers (paper: 41)")
    search_tokens: Count | None = of(
        "search", None, "tokens of a trial's replies (default: as many as of a test reply)"
    )
    selection_prompts: Count = of(
        "search", 32, "further harmful val prompts, that the winner is chosen on"
    )
    objective: Literal["asr", "asr,kl"] = of(
        "search", "asr", "what to optimise: attack success, or that and little drift (KL)"
    )
    max_kl: float | None = of(
        "search",
        None,
        "the winner's KL on harmless replies, in nats a token, is at most this",
        gt=0,
    )
    judge: str = of(
        "search",
        "keyword",
        "judge of trials and table, such as keyword, classifier:MODEL, yesno:MODEL, endpoint:MODEL",
        form="JUDGE",
    )
    coherence: Literal["on", "off"] = of(
        "search",
        "on",
        "on: what complies must make sense and be about the request; off: all of it counts (paper)",
    )
    round_size: Count = of(
        "search", 4, "trials proposed from the same outcomes; as many can run at a time (paper: 1)"
    )

    directions: str | None = of(
        "ablate", None, "file of directions (default: the map's)", form="FILE"
    )
    ids: tuple[int, ...] | None = of(
        "ablate",
        None,
        "ranks to ablate, comma-separated (default: the search's best)",
        parse=parsing.items,
    )
    controls: tuple[str, ...] = of(
        "ablate",
        (),
        "further conditions: as many directions of each of these methods, comma-separated",
        form="METHOD,...",
        parse=parsing.items,
    )
    test_prompts: Count = of("ablate", 64, "at most this many test prompts of each kind")
    test_tokens: Count = of("search", 64, "tokens of a test reply; refusals come late")

    samples: Count = of("ablate", 1, "replies to each test prompt; more need --temperature")
    temperature: float = of("ablate", 0.0, "of the test replies; 0 is greedy", ge=0)
    top_p: float = of("ablate", 1.0, "mass of likeliest tokens to draw from", gt=0, le=1)
    test_systems: str | None = of(
        "ablate",
        None,
        "file of system prompts, one a line: every test prompt is put under each",
        form="FILE",
    )
    reply_models: dict[str, str] | None = of(
        "ablate",
        None,
        "models at --endpoint-url that make test replies instead, as base=NAME,sd=NAME,md=NAME",
        parse=parsing.pairs,
        check=parsing.known_conditions,
    )

    more_judges: tuple[str, ...] = of(
        "judge",
        (),
        "further judges of the test replies, comma-separated",
        form="JUDGE,...",
        parse=parsing.items,
    )
    judge_template: str | None = of(
        "search",
        None,
        "file with {prompt} and {reply}: what judge models read",
        form="FILE",
    )
    judge_labels: dict[str, Literal["complied", "refused", "incoherent", "off topic"]] | None = of(
        "search",
        None,
        "what a classifier's labels mean, as NAME=refused,NAME=complied",
        parse=parsing.pairs,
    )
    judge_settings: dict[str, dict[str, Any]] | None = of(
        "search",
        None,
        "settings of another package's judges, as KIND.SETTING=VALUE,KIND.SETTING=VALUE",
        form="KIND.SETTING=VALUE,...",
        parse=parsing.nested_pairs,
    )

    perplexity: str | None = of("cost", None, "text file whose perplexity is measured", form="FILE")
    tasks: tuple[str, ...] = of(
        "cost",
        (),
        "tasks of lm-evaluation-harness (extra: tasks), comma-separated",
        parse=parsing.items,
        form="TASK,...",
    )
    task_folder: str | None = of("cost", None, "folder of further task definitions", form="FOLDER")
    task_limit: Count | None = of("cost", None, "at most this many examples of a task")

    recipe: str | None = of(
        None, None, "settings of a published result: a name or a TOML file", form="NAME"
    )
    name: str = of(
        None, "default", "the run's folder below the model's", check=parsing.plain_name, form="NAME"
    )
    out: Path | str = of(
        None,
        Path("runs"),
        "folder of all runs, or an fsspec URL such as s3://bucket/runs (extra: s3)",
        parse=parsing.folder_or_url,
        form="FOLDER",
    )
    device: str = of(
        None,
        "auto",
        "cpu, cuda, cuda:1, mps, auto: a GPU where there is one, or spread: over all",
        form="DEVICE",
    )
    storage: str | None = of(
        None,
        None,
        "database URL that keeps the search's study (default: in the run folder)",
        form="URL",
    )
    lanes: Count | None = of(
        None,
        None,
        "trials of a round evaluated side by side in one batch (default: 4, fewer where workers "
        "would have none)",
    )
    workers: Count | None = of(
        None,
        None,
        "processes that each hold the model and share every stage, a GPU each (default: this one, "
        "or as many as the --ray cluster has room for)",
    )
    ray: str | None = of(
        None,
        None,
        "Ray cluster that the workers run on: HOST:PORT or auto, or local for one of this machine",
        form="ADDRESS",
    )
    gpus_per_worker: float | None = of(
        None,
        None,
        "GPUs of each worker: 2 for a model that needs two, 0.5 for two models on one (default: 1 "
        "where there are any)",
        check=parsing.whole_or_share,
        ge=0,
    )
    piece_timeout: float = of(
        None, 3600.0, "seconds after which a worker that has not finished a piece is replaced", gt=0
    )
    batch_size: Count = of(
        None,
        128,
        "prompts in one forward pass, for each lane",
    )
    endpoint_url: str | None = of(
        None,
        None,
        "OpenAI-compatible server of endpoint judges and --reply-models, to /v1",
        form="URL",
    )
    endpoint_timeout: float = of(None, 60.0, "seconds of one try", gt=0)
    endpoint_concurrency: Count = of(None, 8, "requests at a time")
    max_missing: float = of(
        None, 0.02, "share of replies that a judge may leave without a verdict", ge=0, le=1
    )
    trust_remote_code: bool = of(None, False, "run code that comes with the model")


FIELDS: Mapping[str, Setting] = {
    name: value for name, value in vars(Fields).items() if isinstance(value, Setting)
}


@cache
def hints() -> Mapping[str, Any]:
    """The declared type of every setting."""
    found = get_type_hints(Fields, include_extras=True)
    return {name: found[name] for name in FIELDS}


def choices(name: str) -> tuple[str, ...]:
    """The values that a setting may have, where they are listed; names of other packages too."""
    names = FIELDS[name].names
    return tuple(names()) if names else listed(hints()[name])


def is_switch(name: str) -> bool:
    """Whether a setting is on or off."""
    return hints()[name] is bool


def form(name: str) -> str:
    """How a setting's value is written: `INTEGER`, `[on|off]`, `RxC`, `NAME=VALUE,...`."""
    setting = FIELDS[name]
    if setting.names is not None:
        return f"[{'|'.join(setting.names())}]"
    return setting.form or form_of(hints()[name])
