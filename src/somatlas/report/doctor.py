"""A model's account: is it covered, how exactly, and what does it take?"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch

from somatlas.ablation import Projection, edited_weights
from somatlas.errors import InputError
from somatlas.exports.adapter import carried_by_lora
from somatlas.exports.carried import left_behind
from somatlas.exports.edited_model import check_gap, probe_logits, relative_gap
from somatlas.measures.layer_choice import TOKEN_PROMPTS, sought_tokens
from somatlas.measures.layer_rule import first_token_log_probabilities
from somatlas.measures.loudness import RATIO, loudest
from somatlas.models.chat import check_system, find_format
from somatlas.models.integrity import stored_tensors
from somatlas.models.language_model import LanguageModel
from somatlas.models.output_maps import is_tied, output_maps, untie_head
from somatlas.models.plain_text import plain_text_loss
from somatlas.models.structure import Write
from somatlas.prompts import PromptSet
from somatlas.prompts.prompt_set import spread, texts
from somatlas.representations.extract import residual_stream


@dataclass(frozen=True)
class Diagnosis:
    """What `somatlas doctor` prints, a heading and its lines each."""

    sections: dict[str, list[str]]

    def __str__(self) -> str:
        return "\n\n".join(
            "\n".join([title, *(f"  {line}" for line in lines)])
            for title, lines in self.sections.items()
        )


def diagnose(lm: LanguageModel, prompts: PromptSet, batch_size: int) -> Diagnosis:
    """Account of a loaded model; its output head is untied in passing, its weights stay."""
    tied = is_tied(lm.model)
    return Diagnosis(
        {
            f"{lm.name} ({type(lm.model).__name__})": _size(lm, tied),
            "Checkpoint": _checkpoint(lm),
            "Residual stream": _account(lm),
            "Chat template": _template(lm),
            "Refusal tokens": _refusal_tokens(lm, prompts, batch_size),
            "Loud coordinates": _loud(lm, prompts, batch_size),
            "Ablation": _forms(lm),
        }
    )


def _size(lm: LanguageModel, tied: bool) -> list[str]:
    values = [*lm.model.parameters(), *lm.model.buffers()]
    held = sum(value.numel() * value.element_size() for value in values)
    devices = sorted({str(value.device) for value in values})
    cache = 2 * lm.n_layers * lm.d_model * lm.model.dtype.itemsize
    return [
        f"{lm.n_layers} blocks, d_model {lm.d_model}, {str(lm.model.dtype)[6:]}",
        f"weights {held / 2**30:.2f} GiB on {', '.join(devices)}; a cached token at most "
        f"{cache / 2**10:.0f} KiB",
        f"output head: {'shares the embedding matrix' if tied else 'has a matrix of its own'}",
    ]


def _checkpoint(lm: LanguageModel) -> list[str]:
    """What is odd about the files and the weights, and what an export would leave behind."""
    odd = lm.notes or (plain_text_loss(lm).sentence,)
    files = [] if lm.folder is None else [f"{len(stored_tensors(lm.folder))} tensors in its files"]
    return [*files, *odd, *(f"an export: {line}" for line in left_behind(lm))]


def _account(lm: LanguageModel) -> list[str]:
    structure = lm.structure
    kinds = Counter(_described(write) for writes in structure.block_writes for write in writes)
    return [
        *(f"embedding {_described(write)}" for write in structure.embeddings),
        *(f"{count} x {kind}" for kind, count in kinds.items()),
        f"adds up: at most {max(structure.missing):.1e} of a block's output is unexplained",
    ]


def _described(write: Write) -> str:
    factor = "" if abs(write.scale - 1) < 0.01 else f", times {write.scale:.3g}"
    norm = f", then {type(write.norm).__name__}" if write.norm is not None else ""
    return f"{write.path} ({type(write.module).__name__}{norm}{factor})"


def _template(lm: LanguageModel) -> list[str]:
    ids, chat = lm.token_ids("Hello"), lm.chat or find_format(lm.tokenizer, lm.name)
    try:
        check_system(lm.tokenizer, chat, lm.name, "Be kind and brief.")
        system = "yes"
    except InputError as error:
        system = f"no: {error}"
    bos = lm.tokenizer.bos_token_id
    lines = [
        f"system role: {system}",
        f"BOS: {'none' if bos is None else f'{ids.count(bos)} in a formatted prompt'}",
        f"'Hello' becomes {len(ids)} tokens",
    ]
    if chat.parts:
        lines.append(f"content of {' and '.join(chat.parts)} is given as a list of parts")
    if chat.dated:
        lines.append("it prints the date: --date says which it is told")
    return lines


def _refusal_tokens(lm: LanguageModel, prompts: PromptSet, batch_size: int) -> list[str]:
    sides = [spread(side["val"], TOKEN_PROMPTS) for side in (prompts.positive, prompts.negative)]
    harmful, harmless = (
        first_token_log_probabilities(lm, texts(side), batch_size) for side in sides
    )
    try:
        tokens = sought_tokens(lm, sides[0], harmful, harmless)
    except InputError as error:
        return [f"none: {error}"]
    mass = [float(p.exp()[:, tokens].sum(dim=1).mean()) for p in (harmful, harmless)]
    return [
        ", ".join(f"{lm.tokenizer.decode([t])!r} ({t})" for t in tokens),
        f"p of any of them: {mass[0]:.2f} on harmful prompts, {mass[1]:.2f} on harmless ones",
    ]


def _loud(lm: LanguageModel, prompts: PromptSet, batch_size: int) -> list[str]:
    """What one coordinate has of the mean difference, layer by layer, and what to do about it."""
    harmful, harmless = (
        residual_stream(
            lm, texts(spread(side["val"], TOKEN_PROMPTS)), range(lm.n_layers), batch_size=batch_size
        )
        for side in (prompts.positive, prompts.negative)
    )
    found = loudest(harmful, harmless)
    lines = [
        f"layer {layer}: coordinate {one.coordinate} has {one.share:.0%} of the mean difference's "
        f"squared length, and is {one.ratio:.1f} times the root mean square"
        for layer, one in enumerate(found)
    ]
    loud = [layer for layer, one in enumerate(found) if one.is_loud]
    if not loud:
        return [
            *lines,
            f"none is loud (half of the squared length, {RATIO:g} times): nothing to do",
        ]
    return [
        *lines,
        f"loud at layer{'s' * (len(loud) > 1)} {', '.join(map(str, loud))}: the single direction "
        "is hardly more than that coordinate there, and so is what a map sees; run with --scale "
        "mask (or standard, winsor), or choose another --layer",
    ]


def _forms(lm: LanguageModel) -> list[str]:
    """Hooks, weights and LoRA on three random directions, compared where they can be."""
    vectors = torch.randn(3, lm.d_model, generator=torch.Generator().manual_seed(0))
    projection = Projection(vectors)
    lines = ["hooks: exact at what each part writes"]
    if lm.structure.normed:
        lines.append(
            "a norm follows the writes: ablating before it, as the paper does, leaves a leak, "
            "which each run measures; --site residual ablates after it (hooks only)"
        )
    try:
        untie_head(lm.model)
        maps = output_maps(lm.model, lm.structure)
    except InputError as error:
        return [*lines, f"weights and LoRA: no: {error}"]
    with lm.ablate(projection):
        hooked = probe_logits(lm)
    with edited_weights(maps, projection):
        gap = relative_gap(probe_logits(lm), hooked)
    differ = f"logits differ from hooks by {gap:.1e} of the largest"
    if lm.site == "residual" and lm.structure.normed:
        return [*lines, f"weights and LoRA: no: --site residual is by hooks only ({differ})"]
    try:
        check_gap(lm, gap, "the edited weights")
    except InputError:
        return [*lines, f"weights and LoRA: no: {differ}, use hooks"]
    lines.append(f"weights: {differ}")
    _, left_out = carried_by_lora(lm, maps)
    lines.append(
        f"LoRA: not exact: it leaves out {', '.join(left_out)} ({', '.join(left_out.values())}, "
        "...); --save-adapter measures what that loses"
        if left_out
        else "LoRA: as exact as the weights"
    )
    return lines
