"""Exports of a run's ablation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from somatlas.directions.direction_set import DirectionSet
from somatlas.exports.adapter import save_adapter
from somatlas.exports.card import Provenance
from somatlas.exports.carried import left_behind
from somatlas.exports.edited_model import check_new, save_model
from somatlas.files import write_text
from somatlas.ablation import Projection
from somatlas.runs.folder import Run, chosen_layer
from somatlas.runs.stages.ablate_stage import chosen_directions

EXPORTS = ("save_model", "save_adapter", "save_directions")


def check_exports(paths: Mapping[str, Path | None]) -> None:
    """Raise InputError, before any work, where something is already at a path."""
    for path in paths.values():
        if path is not None:
            check_new(path)


def save_exports(
    run: Run, paths: Mapping[str, Path | None], tell: Callable[[str], None] = lambda _: None
) -> list[Path]:
    """Write what was asked for; returns the paths written. tell : is told, before a model is
    saved, what of its source it will not have."""
    wanted = {name: path for name, path in paths.items() if path is not None}
    if not wanted:
        return []
    ranks, vectors = chosen_directions(run)
    projection = Projection(vectors, run.config.mode)
    provenance = _provenance(run, ranks)
    for name, path in wanted.items():
        if name == "save_model":
            for line in left_behind(run.lm):
                tell(line)
            save_model(run.lm, projection, path, provenance)
        elif name == "save_adapter":
            save_adapter(run.lm, projection, path, provenance)
        else:
            source = run.config.directions or run.path("directions.safetensors")
            DirectionSet.load(Path(source)).save(path, provenance.facts())
            form = (
                "Directions in rank order, one a row, as safetensors; the metadata says the same."
            )
            write_text(path.with_suffix(".md"), provenance.card(f"{path.name}, directions", form))
    return list(wanted.values())


def _provenance(run: Run, ranks: list[int]) -> Provenance:
    config, table = run.config, run.path("table.txt")
    return Provenance(
        base=config.model,
        revision=str(getattr(run.lm.model.config, "_commit_hash", None) or ""),
        layer=chosen_layer(run),
        ranks=ranks,
        mode=config.mode,
        site=config.site,
        prompts=config.positive or config.prompts,
        prompts_sha256=run.prompts.sha256(),
        seed=config.seed,
        measured=table.read_text(encoding="utf-8") if table.exists() else "",
    )
