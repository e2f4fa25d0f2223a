"""The same edit as a PEFT LoRA adapter of rank exactly k."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from peft import LoraConfig
from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from somatlas.ablation import OutputMap, Projection, edited_weights, low_rank_update
from somatlas.errors import InputError
from somatlas.exports.base import base_model
from somatlas.exports.card import Provenance
from somatlas.exports.edited_model import (
    check_editable,
    check_new,
    probe_logits,
    relative_gap,
)
from somatlas.files import atomic_folder, write_text
from somatlas.measures.layer_rule import mean_kl
from somatlas.models.language_model import LanguageModel
from somatlas.models.output_maps import is_tied, output_maps, untie_head
from somatlas.numerics.probabilities import log_probabilities

# PEFT has no LoRA for the output projection of these mixers (its own check says so).
_MAMBA_TYPES = frozenset({"falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h"})


def carried_by_lora(
    lm: LanguageModel, maps: Sequence[OutputMap]
) -> tuple[list[OutputMap], dict[str, str]]:
    """What of the maps a LoRA carries, and what it leaves out: kind -> first name of that kind."""
    carried: list[OutputMap] = []
    left_out: dict[str, str] = {}
    mamba = lm.model.config.model_type in _MAMBA_TYPES
    loaded = _loaded_by_peft(lm, [one.name for one in maps if one.weight.ndim == 2])
    modules = dict(lm.model.named_modules())
    for one in maps:
        module = modules.get(one.name)
        if not isinstance(module, nn.Linear | nn.Embedding | Conv1D):
            kind = "stacked experts" if one.weight.ndim > 2 else "weights of other modules"
            left_out.setdefault(kind, one.name)
            continue
        if one.name not in loaded:
            left_out.setdefault("linear layers that PEFT takes for experts", one.name)
            continue
        if mamba and one.name.endswith("out_proj"):
            left_out.setdefault("mixers", one.name)
            continue
        if one.bias is not None:
            left_out.setdefault("biases", one.name)
        carried.append(replace(one, bias=None))
    return carried, left_out


def _loaded_by_peft(lm: LanguageModel, names: Sequence[str]) -> set[str]:
    """Of target modules, those that PEFT keeps: in a mixture it takes any `down_proj` for an old
    name of the stacked experts, and then loads no matrix of a dense or shared one."""
    if not names:
        return set()
    config = LoraConfig(target_modules=list(names))
    convert_peft_config_for_transformers(config, lm.model, None)
    return set(config.target_modules or ())


def save_adapter(
    lm: LanguageModel, projection: Projection, folder: Path, provenance: Provenance
) -> None:
    """Write P - I as an adapter of rank k that `PeftModel.from_pretrained` loads.

    A LoRA holds matrices: it carries linear layers and embeddings, but no biases, no experts
    stacked in one tensor and no Mamba mixers. The card says what is left out and what that costs
    in logits and KL, and the same for servers that leave out the embedding's part too. Raises
    InputError as `save_model`.
    """
    check_new(folder)
    check_editable(lm)
    if lm.edit_head and is_tied(lm.model):
        raise InputError(
            'tied_head = "paper" edits the output head too, which an adapter leaves alone: use '
            "--save-model, or --tied-head keep"
        )
    untie_head(lm.model)
    maps = output_maps(lm.model, lm.structure)
    carried, left_out = carried_by_lora(lm, maps)
    embedded = {id(write.module.weight) for write in lm.structure.embeddings}
    with lm.ablate(projection):
        expected = probe_logits(lm)
    losses = [
        _loss(lm, projection, expected, carried, "as PEFT loads it"),
        _loss(
            lm,
            projection,
            expected,
            [one for one in carried if id(one.weight) not in embedded],
            "without the part of the embedding, which many servers do not load",
        ),
    ]
    rank = projection.A.shape[1]
    base = base_model(provenance.base, provenance.revision)
    config = LoraConfig(
        r=rank,
        lora_alpha=rank,  # a factor of 1
        target_modules=[one.name for one in carried],
        fan_in_fan_out=any(one.axis == 1 and id(one.weight) not in embedded for one in carried),
        base_model_name_or_path=base.name,
        revision=base.revision,
        task_type="CAUSAL_LM",
        inference_mode=True,
    )
    tensors: dict[str, Tensor] = {}
    for one in carried:
        minus_a, b_w = low_rank_update(one, projection)
        kind = "lora_embedding_{}" if id(one.weight) in embedded else "lora_{}.weight"
        for letter, factor in (("A", b_w), ("B", minus_a)):
            key = f"base_model.model.{one.name}.{kind.format(letter)}"
            tensors[key] = factor.contiguous().clone()
    with atomic_folder(folder) as target:
        config.save_pretrained(target)
        save_file(tensors, target / "adapter_model.safetensors", metadata={"format": "pt"})
        lm.tokenizer.save_pretrained(target)
        listed = ", ".join(f"{kind} (such as {name})" for kind, name in left_out.items())
        missing = f" It does not carry {listed}." if left_out else ""
        form = (
            f"A PEFT LoRA adapter of rank {rank}: minus A times B^T W for every matrix W that "
            f"writes to the residual stream.{missing}\n\n{base.text}\n\n"
            "Against the ablation by hooks:\n\n" + "\n".join(losses)
        )
        write_text(target / "README.md", provenance.card(f"{lm.name}, adapter", form))


def _loss(
    lm: LanguageModel,
    projection: Projection,
    expected: Tensor,
    maps: Sequence[OutputMap],
    what: str,
) -> str:
    """What editing these maps alone leaves out of the hooks' logits: a line for the card."""
    with edited_weights(maps, projection):
        actual = probe_logits(lm)
    kl = mean_kl(log_probabilities(expected), log_probabilities(actual))
    return (
        f"- {what}: logits differ by {relative_gap(actual, expected):.1e} of the largest, "
        f"KL {kl:.2g} nats a token"
    )
