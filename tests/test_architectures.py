"""Every architecture: the account adds up, the forms of an ablation agree, padding is harmless."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from architectures import ARCHITECTURES, build, language_model
from model_table import PATH, table
from somatlas import InputError, Projection
from somatlas.exports.checkpoint import probe_logits, relative_gap
from somatlas.interventions import edited_weights
from somatlas.leak import leak
from somatlas.models.language_model import LanguageModel
from somatlas.models.output_maps import output_maps, untie_head
from somatlas.models.structure import find_structure
from somatlas.representations import represent

NORMED = {"Gemma2", "Gemma3 (text)", "Gemma3 (image-text)", "OLMo2"}
PROMPTS = ["Hi", "A longer prompt, so that the batch needs padding", "Where to?"]


def projection(lm: LanguageModel, mode: str = "sequential") -> Projection:
    generator = torch.Generator().manual_seed(1)
    shared = torch.randn(lm.d_model, generator=generator)
    vectors = shared + torch.randn(3, lm.d_model, generator=generator)
    return Projection(vectors, mode)  # type: ignore[arg-type]


def block_outputs(lm: LanguageModel) -> Tensor:
    """(blocks, tokens, d) float64 of one prompt, read at the blocks themselves."""
    outputs: list[Tensor] = []

    def read(_module: object, _args: object, output: Tensor | tuple[Tensor, ...]) -> None:
        outputs.append((output if isinstance(output, Tensor) else output[0])[0].double())

    handles = [block.register_forward_hook(read) for block in lm.structure.blocks]
    with torch.no_grad():
        lm.model(input_ids=torch.tensor([lm.token_ids("Hello")]), use_cache=False)
    for handle in handles:
        handle.remove()
    return torch.stack(outputs)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_embeddings_and_writes_add_up_to_every_block(name: str) -> None:
    lm = language_model(name)
    assert max(lm.structure.missing) < 1e-5
    assert all(len(writes) >= 2 for writes in lm.structure.block_writes)
    assert lm.structure.normed == (name in NORMED)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_half_precision_finds_the_same_writes(name: str) -> None:
    lm = language_model(name)
    half = build(name).to(torch.bfloat16)
    structure = find_structure(half, torch.tensor([lm.token_ids("Hello there")]))
    found, expected = (
        [(w.path, bool(w.norm)) for w in s.writes] for s in (structure, lm.structure)
    )
    assert found == expected


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_hooks_and_weights_give_the_same_logits(name: str) -> None:
    lm = language_model(name)
    untie_head(lm.model)
    P, before = projection(lm), probe_logits(lm)
    with lm.ablate(P):
        hooked = probe_logits(lm)
    with edited_weights(output_maps(lm.model, lm.structure), P):
        edited = probe_logits(lm)
    assert relative_gap(edited, hooked) < 1e-4
    assert relative_gap(hooked, before) > 0.02
    assert relative_gap(probe_logits(lm), before) < 1e-4  # restored


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_nothing_along_the_directions_is_left_in_the_residual_stream(name: str) -> None:
    """At the site "residual"; at the paper's site too, but where a norm follows: the leak."""
    lm = language_model(name)
    P = projection(lm, "subspace")
    share = {}
    for site in ("projection", "residual"):
        with replace(lm, site=site).ablate(P):  # type: ignore[arg-type]
            outputs = block_outputs(lm)
        share[site] = float((outputs @ P.A).norm() / outputs.norm())
    assert share["residual"] < 1e-6
    leaked = leak(lm, PROMPTS, P, batch_size=2)
    assert leak(replace(lm, site="residual"), PROMPTS, P, batch_size=2) == 0
    if name in NORMED:
        assert share["projection"] > 1e-3
        assert leaked > 1e-3
    else:
        assert share["projection"] < 1e-6
        assert leaked == 0


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_left_padded_batches_equal_single_prompts(name: str) -> None:
    lm = language_model(name)
    layers = range(lm.n_layers)
    batch = represent(lm, PROMPTS, layers, batch_size=3)
    single = represent(lm, PROMPTS, layers, batch_size=1)
    torch.testing.assert_close(batch, single, rtol=1e-4, atol=1e-4 * float(single.abs().max()))


def test_a_block_that_does_not_add_up_is_named_with_the_share_that_is_missing() -> None:
    model = build("Llama")

    def more(_module: object, _args: object, output: Tensor) -> Tensor:
        return output + output.flip(-1)

    model.model.layers[1].register_forward_hook(more)
    with pytest.raises(InputError, match=r"block 1's output .* \(\d+\.\d% of it is missing\)"):
        find_structure(model, torch.tensor([[5, 6, 7, 8, 9, 10]]))


def test_something_added_between_two_blocks_is_seen() -> None:
    model = build("Llama")
    model.model.layers[2].register_forward_pre_hook(lambda _m, args: (args[0] + 1, *args[1:]))
    with pytest.raises(InputError, match="block 2's input"):
        find_structure(model, torch.tensor([[5, 6, 7, 8, 9, 10]]))


def test_quantised_weights_are_refused_and_hooks_still_act() -> None:
    lm = replace(language_model("Llama"), model=build("Llama"))
    lm = replace(lm, structure=find_structure(lm.model, torch.tensor([[5, 6, 7, 8, 9, 10]])))
    layer = lm.model.model.layers[1].mlp.down_proj
    packed = torch.nn.Parameter(layer.weight.to(torch.int8), requires_grad=False)
    weight, forward = layer.weight.clone(), torch.nn.functional.linear
    layer.forward = lambda x: forward(x, weight)  # what a quantised layer does: unpack, multiply
    layer.weight = packed
    with pytest.raises(InputError, match="down_proj are quantised or packed"):
        output_maps(lm.model, lm.structure)
    before = probe_logits(lm)
    with lm.ablate(projection(lm)):
        assert relative_gap(probe_logits(lm), before) > 0.02


def test_the_table_of_models_is_what_the_models_say() -> None:
    """docs/models.md is written by tests/model_table.py."""
    assert PATH.read_text(encoding="utf-8") == table()
