"""Representations of the train prompts, at every layer or those that are kept."""

from __future__ import annotations

from somatlas.errors import InputError
from somatlas.progress import progress
from somatlas.prompts.sets import texts
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


def check_grid(run: Run) -> None:
    """Raise InputError where the map would have more neurons than prompts."""
    neurons = run.config.grid[0] * run.config.grid[1]
    prompts = len(run.prompts.positive["train"])
    if neurons > prompts:
        raise InputError(
            f"a grid of {neurons} neurons is larger than the {prompts} train prompts it maps: use "
            "a smaller --grid or more prompts"
        )
