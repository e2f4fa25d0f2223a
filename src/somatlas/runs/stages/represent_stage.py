"""Representations of the train prompts, at every layer or those that are kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from somatlas.errors import InputError
from somatlas.fleet import Work, deal
from somatlas.models.generation import first_reply_tokens
from somatlas.models.language_model import ended_at
from somatlas.models.load import folder_name
from somatlas.models.prompt_check import check_prompts
from somatlas.progress import Advance, note, progress
from somatlas.prompts.prompt_set import SPLITS, texts
from somatlas.representations.extract import check_layers, residual_stream
from somatlas.representations.store import SIDES, RepresentationStore, Side
from somatlas.runs.contents import Inputs
from somatlas.runs.folder import Run


def represent_stage(run: Run) -> None:
    """Write the shards that are missing."""
    config = run.config
    if config.layer_data == "paper":
        _ = run.rule_prompts  # what cannot be had is said before anything is computed
    model, inputs = run.fleet.prepared(model_work, None).one(None)  # loaded before the progress
    layers = config.layers or tuple(range(run.shape.n_layers))
    run.begin("represent", model=model)
    inputs.write(run.folder)
    counts: dict[Side, int] = {side: len(_side(run, side)) for side in SIDES}
    token = f"prompt {config.token_position}"
    if config.reply_token is not None:
        token = f"reply {config.reply_token}"
    store = RepresentationStore.create(
        run.path("representations"), counts, layers, run.shape.d_model, token
    )
    todo = store.missing()  # others were finished before an interruption
    pieces = deal([_Rows(shard.side, shard.start, shard.stop) for shard in todo], 1)
    total_short = 0
    with progress("represent", sum(counts.values())) as advance:
        advance(sum(counts.values()) - sum(len(rows) for (rows,) in pieces))
        prepared = run.fleet.prepared(vector_work, layers)
        found = prepared.each(pieces, advance, lambda rows: sum(map(len, rows)))
        for shard, ((vectors, short),) in zip(todo, found, strict=True):
            total_short += short
            facts = {"short_replies": str(short)} if short else {}
            own = np.require(vectors, requirements="W")  # what another process made may not be
            store.write(shard, torch.from_numpy(own), **facts)
    if total_short:
        note(
            f"represent: {total_short} replies end before their token {config.reply_token}: the "
            "last token of each, or of its prompt where it has none, is read instead"
        )


def model_work(run: Run, _shared: None) -> Work[None, tuple[dict[str, Any], Inputs]]:
    """What stages.json has of the model, and how prompts are put to it, once that was tried."""

    def work(items: Sequence[None], _advance: Advance) -> list[tuple[dict[str, Any], Inputs]]:
        check_position(run, run.lm.token_ids)
        check_asked_layers(run, run.lm.n_layers)
        return [(run.model_record(), _inputs(run)) for _ in items]

    return work


@dataclass(frozen=True)
class _Rows:
    """Train prompts start .. stop - 1 of one side."""

    side: Side
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


def vector_work(run: Run, layers: tuple[int, ...]) -> Work[_Rows, tuple[NDArray[np.float32], int]]:
    """(prompts, layers, d) vectors of some prompts, and how many of their replies were short."""

    def work(pieces: Sequence[_Rows], advance: Advance) -> list[tuple[NDArray[np.float32], int]]:
        found = []
        for rows in pieces:
            prompts = _side(run, rows.side)[rows.start : rows.stop]
            where = token_read(run, prompts)
            vectors = residual_stream(
                run.lm,
                prompts,
                layers,
                batch_size=run.config.batch_size,
                advance=advance,
                **where,
            )
            found.append((vectors.numpy(), _short_replies(run, where["suffixes"])))
        return found

    return work


def _side(run: Run, side: Side) -> list[str]:
    prompts = run.prompts.positive if side == "positive" else run.prompts.negative
    return texts(prompts["train"])


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
