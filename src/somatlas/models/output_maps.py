"""The weights behind the writes: the last linear map of every part, wherever it sits inside."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from somatlas.errors import InputError
from somatlas.interventions import OutputMap
from somatlas.models.structure import ResidualStructure, Write

# Names of the last linear map of attention, MLP and mixer parts over transformers' architectures.
# A wrong one does not pass: edited weights are compared with hooks before anything is saved.
_LAST_NAMES = frozenset(
    {"c_proj", "dense", "dense_4h_to_h", "down_proj", "fc2", "fc_out", "o_proj", "out_proj"}
    | {"w2", "wo"}
)


def output_maps(model: PreTrainedModel, structure: ResidualStructure) -> list[OutputMap]:
    """Every matrix whose outputs go to the residual stream, embeddings first.

    Raises InputError for a part whose weights are quantised or in a form that is not known.
    """
    names = {module: name for name, module in model.named_modules()}
    d_model = int(model.config.get_text_config().hidden_size)
    found = []
    for write in structure.writes:
        maps = list(_maps_of(write, names[write.module], d_model))
        if not maps:
            raise InputError(
                f"the last linear map of {names[write.module]} "
                f"({type(write.module).__name__}) is not known: its weights cannot be edited, "
                "use hooks"
            )
        found += maps
    return found


def untie_head(model: PreTrainedModel) -> None:
    """Give the output head a matrix of its own where it shares the embedding's."""
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if head is not None and head.weight is embedding.weight:
        head.weight = nn.Parameter(embedding.weight.detach().clone(), requires_grad=False)
        for config in (model.config, model.config.get_text_config()):
            config.tie_word_embeddings = False


def is_tied(model: PreTrainedModel) -> bool:
    """Whether the output head shares the embedding's matrix."""
    head = model.get_output_embeddings()
    return head is not None and head.weight is model.get_input_embeddings().weight


def _maps_of(write: Write, name: str, d_model: int) -> Iterator[OutputMap]:
    if isinstance(write.module, nn.Embedding):
        yield _checked(OutputMap(name, write.module.weight, 1), d_model)
        return
    for inner, module in write.module.named_modules():
        full = f"{name}.{inner}" if inner else name
        weight = getattr(module, "down_proj", None)
        if isinstance(weight, nn.Parameter) and weight.ndim == 3:  # experts in one tensor
            axis = 2 if getattr(module, "is_transposed", False) else 1
            bias = getattr(module, "down_proj_bias", None)
            yield _checked(OutputMap(f"{full}.down_proj", weight, axis, bias), d_model)
        elif inner.rpartition(".")[2] in _LAST_NAMES and isinstance(module, nn.Linear | Conv1D):
            axis = 1 if isinstance(module, Conv1D) else 0
            yield _checked(OutputMap(full, module.weight, axis, module.bias), d_model)


def _checked(one: OutputMap, d_model: int) -> OutputMap:
    weight = one.weight
    if weight.is_meta:
        raise InputError(f"the weights of {one.name} are offloaded and cannot be edited, use hooks")
    if not weight.is_floating_point() or weight.shape[one.axis] != d_model:
        raise InputError(
            f"the weights of {one.name} are quantised or packed ({weight.dtype}, "
            f"{'x'.join(map(str, weight.shape))}): they cannot be edited, use hooks"
        )
    return one
