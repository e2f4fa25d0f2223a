"""Representations of the train prompts, at every layer or those that are kept."""

from __future__ import annotations

from typing import Any

from somatlas.errors import InputError
from somatlas.files import write_json
from somatlas.models.prompt_check import check_prompts
from somatlas.progress import progress
from somatlas.prompts.sets import SPLITS, texts
from somatlas.representation_store import SIDES, RepresentationStore, Side
from somatlas.representations import check_layers, represent
from somatlas.run import Run


def represent_stage(run: Run) -> None:
    """Write the shards that are missing; with `part` I/N, every N-th of them alone."""
    config = run.config
    prompts: dict[Side, list[str]] = {
        "positive": texts(run.prompts.positive["train"]),
        "negative": texts(run.prompts.negative["train"]),
    }
    check_grid(run)
    lm = run.lm  # loaded before the progress starts
    layers = config.layers or tuple(range(lm.n_layers))
    check_layers(lm, layers)
    if config.layer is not None:
        check_layers(lm, [config.layer])
        if config.layer not in layers:
            raise InputError(f"layer {config.layer} is not among --layers, those that are kept")
    run.begin("represent")
    write_json(run.path("inputs.json"), _inputs(run))
    counts = {side: len(prompts[side]) for side in SIDES}
    store = RepresentationStore.create(run.path("representations"), counts, layers, lm.d_model)
    part, parts = config.part or (0, 1)
    own = store.shards()[part::parts]
    with progress("represent", sum(shard.stop - shard.start for shard in own)) as advance:
        for shard in own:
            if shard.path.exists():  # finished before an interruption
                advance(shard.stop - shard.start)
                continue
            own_prompts = prompts[shard.side][shard.start : shard.stop]
            store.write(
                shard,
                represent(lm, own_prompts, layers, batch_size=config.batch_size, advance=advance),
            )


def _inputs(run: Run) -> dict[str, Any]:
    """How prompts are put to the model, and what a reader should know of them."""
    c, chat = run.config, run.lm.chat
    room = {"train": 0, "val": c.search_tokens or c.test_tokens, "test": c.test_tokens}
    notes = list(run.prompts.notes)
    if chat is not None and chat.dated:
        notes.append(f"the chat template prints the date: it is told {c.date}")
    sides = (run.prompts.positive, run.prompts.negative, run.prompts.borderline)
    for split in SPLITS:
        own = [prompt for side in sides for prompt in texts(side.get(split, ()))]
        for note in check_prompts(run.lm, own, room[split]):
            notes.append(f"of the {split} prompts {note}")
    return {
        "notes": notes,
        "date": c.date if chat is not None and chat.dated else None,
        "content_in_parts": [] if chat is None else list(chat.parts),
    }


def check_grid(run: Run) -> None:
    """Raise InputError where the map would have more neurons than prompts."""
    neurons = run.config.grid[0] * run.config.grid[1]
    prompts = len(run.prompts.positive["train"])
    if neurons > prompts:
        raise InputError(
            f"a grid of {neurons} neurons is larger than the {prompts} train prompts it maps: use "
            "a smaller --grid or more prompts"
        )
