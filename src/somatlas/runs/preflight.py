"""What a command names is tried before a model is loaded: all that is wrong is said at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from somatlas.directions.direction_set import DirectionSet
from somatlas.directions.methods import METHODS
from somatlas.errors import InputError, Problems
from somatlas.evaluation.harness import Harness
from somatlas.judges.keyword import matcher
from somatlas.judges.template import template_from_file
from somatlas.measures.layer_choice import kept_candidates, valid_tokens
from somatlas.models.chat import ChatFormat, chat_token_ids, check_system, find_format
from somatlas.models.load import check_device, load_config, load_tokenizer
from somatlas.runs.folder import Run, ranks_within
from somatlas.runs.settings import STAGES, Config, Stage
from somatlas.runs.stages.ablate_stage import reply_server, system_prompts
from somatlas.runs.stages.cost_stage import perplexity_text
from somatlas.runs.stages.represent_stage import check_asked_layers, check_grid, check_position
from somatlas.runs.stages.search_stage import check_storage
from somatlas.runs.workforce import cluster_of, on_ray

_WITHOUT_MODEL: tuple[Stage, ...] = ("map",)


def check_inputs(run: Run, stages: Sequence[Stage]) -> None:
    """Try every file, column, template, system prompt, layer, token, judge, task and storage that
    the stages to be done read, and raise one InputError that lists all that is wrong. Writes
    nothing."""
    problems = Problems()
    with problems.gathered():
        run.prompts  # noqa: B018
    todo = list(stages)
    if not problems.found:
        todo = [stage for stage in stages if run.would_do(stage)]
    for needed, check in _CHECKS:
        if set(needed) & set(todo):
            with problems.gathered():
                check(run)
    if set(todo) & {"search", "judge"}:
        judges = [run.config.judge] if "search" in todo else []
        judges += [run.config.judge, *run.config.more_judges] if "judge" in todo else []
        for spec in dict.fromkeys(judges):
            with problems.gathered():
                run.judges.check(spec)
    problems.raise_found()


def _model(run: Run) -> None:
    """The device, or the cluster, and the template with every system prompt put into it."""
    c, problems = run.config, Problems()
    with problems.gathered():
        if not on_ray(c):
            check_device(c.device)
        else:
            cluster_of(c)
    systems = [] if c.system is None else [c.system]
    if c.test_systems is not None:
        with problems.gathered():
            systems += system_prompts(Path(c.test_systems))
    with problems.gathered():
        tokenizer, chat = _chat(run)
        for system in systems:
            with problems.gathered():
                check_system(tokenizer, chat, c.model, system)
    problems.raise_found()


def _layers(run: Run) -> None:
    c = run.config
    if (c.layers or c.layer is not None) and (n := _count(run, "num_hidden_layers")):
        check_asked_layers(run, n)


def _rule(run: Run) -> None:
    c = run.config
    if c.layers is not None and c.layer is None and (n := _count(run, "num_hidden_layers")):
        kept_candidates(c.layers, n)


def _refusal_tokens(run: Run) -> None:
    if run.config.refusal_tokens is not None and (n := _count(run, "vocab_size")):
        valid_tokens(run.config.refusal_tokens, n)


def _count(run: Run, name: str) -> int | None:
    return stated(run.config.model, name, run.config.trust_remote_code)


def stated(model: str, name: str, trust_remote_code: bool) -> int | None:
    """A number of a model's configuration, such as its hidden_size; None where it says nothing, or
    cannot be read, which loading tells."""
    try:
        config = load_config(model, trust_remote_code)
    except InputError:
        return None
    count = getattr(config, name, None)
    return count if isinstance(count, int) else None


def _position(run: Run) -> None:
    c = run.config
    if c.token_position == -1:
        return
    tokenizer, chat = _chat(run)
    thinking = _thinking(c)
    check_position(run, lambda p: chat_token_ids(tokenizer, p, c.system, thinking, chat))


def _chat(run: Run) -> tuple[PreTrainedTokenizerBase, ChatFormat]:
    c = run.config
    tokenizer = load_tokenizer(c.model, c.trust_remote_code)
    return tokenizer, find_format(
        tokenizer, c.model, source=c.chat_template, date=c.date, thinking=_thinking(c)
    )


def _thinking(config: Config) -> bool | None:
    return None if config.thinking is None else config.thinking == "on"


def _directions(run: Run) -> None:
    if run.config.directions is None:
        return
    directions = DirectionSet.load(Path(run.config.directions))
    if run.config.ids is not None:
        ranks_within(run.config.ids, len(directions))
    length, width = directions.vectors.shape[1], _count(run, "hidden_size")
    if width is not None and length != width:
        raise InputError(
            f"the directions of {run.config.directions} have {length} values, the vectors of "
            f"{run.config.model} {width}: they belong to another model"
        )


def _method(run: Run) -> None:
    METHODS.get(run.config.method).check_installed()


def _behaviour(run: Run) -> None:
    matcher(run.config.behaviour)


def _reply_models(run: Run) -> None:
    for model in dict.fromkeys((run.config.reply_models or {}).values()):
        reply_server(run.config, model).check()


def _perplexity(run: Run) -> None:
    if run.config.perplexity is not None:
        perplexity_text(run.config.perplexity)


def _tasks(run: Run) -> None:
    c = run.config
    if c.tasks:
        Harness(c.tasks, c.task_folder, c.task_limit, c.seed)


def _judge_template(run: Run) -> None:
    if run.config.judge_template is not None:
        template_from_file(Path(run.config.judge_template))


_CHECKS: tuple[tuple[tuple[Stage, ...], Callable[[Run], None]], ...] = (
    (tuple(stage for stage in STAGES if stage not in _WITHOUT_MODEL), _model),
    (("map",), check_grid),
    (("represent",), _position),
    (("represent", "layers"), _layers),
    (("layers",), _rule),
    (("layers",), _refusal_tokens),
    (("map",), _method),
    (("search",), check_storage),
    (("search", "judge"), _behaviour),
    (("search", "judge"), _judge_template),
    (("ablate", "cost", "atlas"), _directions),
    (("ablate",), _reply_models),
    (("cost",), _perplexity),
    (("cost",), _tasks),
)
