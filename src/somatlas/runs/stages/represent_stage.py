"""Representations of the train prompts, at every layer or those that are kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from somatlas.errors import InputError
from somatlas.models.generation import first_reply_tokens
from somatlas.models.language_model import ended_at
from somatlas.models.load import folder_name
from somatlas.models.prompt_check import check_prompts
from somatlas.progress import note, progress
from somatlas.prompts.prompt_set import SPLITS, texts
from somatlas.representations.extract import check_layers, residual_stream
from somatlas.representations.store import SIDES, RepresentationStore, Side
from somatlas.runs.contents import Inputs
from somatlas.runs.folder import Run


def represent_stage(run: Run) -> None:
    """Write the shards that are missing; with `part` I/N, every N-th of them alone."""
    config = run.config
    prompts: dict[Side, list[str]] = {
        "positive": texts(run.prompts.positive["train"]),
        "negative": texts(run.prompts.negative["train"]),
    }
    check_grid(run)
    if config.layer_data == "paper":
        _ = run.rule_prompts  # what cannot be had is said before anything is computed
    lm = run.lm  # loaded before the progress starts
    check_position(run, lm.token_ids)
    check_asked_layers(run, lm.n_layers)
    layers = config.layers or tuple(range(lm.n_layers))
    run.begin("represent", model=run.model_record())
    _inputs(run).write(run.folder)
    counts = {side: len(prompts[side]) for side in SIDES}
    token = f"prompt {config.token_position}"
    if config.reply_token is not None:
        token = f"reply {config.reply_token}"
    store = RepresentationStore.create(
        run.path("representations"), counts, layers, lm.d_model, token
    )
    part, parts = config.part or (0, 1)
    own = store.shards()[part::parts]
    total_short = 0
    with progress("represent", sum(shard.stop - shard.start for shard in own)) as advance:
        for shard in own:
            if shard.path.exists():  # finished before an interruption
                advance(shard.stop - shard.start)
                continue
            own_prompts = prompts[shard.side][shard.start : shard.stop]
            where = token_read(run, own_prompts)
            vectors = residual_stream(
                lm, own_prompts, layers, batch_size=config.batch_size, advance=advance, **where
            )
            short = _short_replies(run, where["suffixes"])
            total_short += short
            store.write(shard, vectors, **({"short_replies": str(short)} if short else {}))
    if total_short:
        note(
            f"represent: {total_short} replies end before their token {config.reply_token}: the "
            "last token of each, or of its prompt where it has none, is read instead"
        )


def _inputs(run: Run) -> Inputs:
    """How prompts are put to the model, and what a reader should know of them."""
    c, chat = run.config, run.lm.chat
    room = {"train": 0, "val": c.search_tokens or c.test_tokens, "test": c.test_tokens}
    notes = list(run.prompts.notes)
    if chat is not None and chat.dated:
        notes.append(f"the chat template prints the date: it is told {c.date}")
    sides = (run.prompts.positive, run.prompts.negative, run.prompts.borderline)
    for split in SPLITS:
        own = [prompt for side in sides for prompt in texts(side.get(split, ()))]
        for said in check_prompts(run.lm, own, room[split]):
            notes.append(f"of the {split} prompts {said}")
    return Inputs(
        notes=notes,
        date=c.date if chat is not None and chat.dated else None,
        content_in_parts=[] if chat is None else list(chat.parts),
    )


def check_grid(run: Run) -> None:
    """Raise InputError where the map would have more neurons than prompts."""
    neurons = run.config.grid[0] * run.config.grid[1]
    prompts = len(run.prompts.positive["train"])
    if neurons > prompts:
        raise InputError(
            f"a grid of {neurons} neurons is larger than the {prompts} train prompts it maps: use "
            "a smaller --grid or more prompts"
        )


def check_asked_layers(run: Run, n_layers: int) -> None:
    """Raise InputError where a layer to be kept or cut is none of n_layers, or the one to be cut is
    not kept."""
    layer, layers, name = run.config.layer, run.config.layers, folder_name(run.config.model)
    if layers:
        check_layers(name, n_layers, layers)
    if layer is not None:
        check_layers(name, n_layers, [layer])
        if layers is not None and layer not in layers:
            raise InputError(f"layer {layer} is not among --layers, those that are kept")


def token_read(run: Run, prompts: Sequence[str]) -> dict[str, Any]:
    """What `represent` is told of the token that the run reads.

    A reply is the model's own as it is when this is called: call it before an ablation.
    """
    config = run.config
    suffixes = None
    if config.reply_token is not None:
        suffixes = first_reply_tokens(run.lm, prompts, config.reply_token, config.batch_size)
    return {"position": config.token_position, "suffixes": suffixes}


def _short_replies(run: Run, suffixes: Sequence[Sequence[int]] | None) -> int:
    return sum(len(reply) < (run.config.reply_token or 0) for reply in suffixes or ())


def check_position(run: Run, token_ids: Callable[[str], list[int]]) -> None:
    """Raise InputError where the token read is not in every train prompt, or is the same in all."""
    position = run.config.token_position
    if position == -1:
        return
    prompts = [*run.prompts.positive["train"], *run.prompts.negative["train"]]
    if len({tuple(ended_at(token_ids(prompt), position)) for prompt in texts(prompts)}) == 1:
        raise InputError(
            f"all prompts are the same up to token {position}, which the chat template writes: "
            "choose a --token-position behind the request's beginning"
        )
