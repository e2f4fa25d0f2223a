"""Every architecture: the account adds up, the forms of an ablation agree, padding is harmless."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from architectures import ARCHITECTURES, USUAL, build, language_model
from model_table import PATH, table
from somatlas import InputError, Projection
from somatlas.ablation import LayerProjections, RowProjections, edited_weights
from somatlas.exports.edited_model import probe_logits, relative_gap
from somatlas.measures.drift import Drift
from somatlas.measures.layer_rule import first_token_log_probabilities, mean_kl
from somatlas.measures.leak import leak
from somatlas.models.language_model import LanguageModel
from somatlas.models.output_maps import output_maps, untie_head
from somatlas.models.structure import find_structure
from somatlas.models.terms import is_norm
from somatlas.representations.extract import residual_stream

NORMED = {
    *("Gemma2", "Gemma3 (text)", "Gemma3 (image-text)", "Gemma4 (text)", "Gemma4 Unified"),
    *("OLMo2", "OLMo3", "OLMo-Hybrid", "FlexOLMo", "GLM4", "BLOOM", "AFMoE", "EXAONE-4"),
    *("HyperCLOVA X", "LFM3", "nanochat", "Kolibri", "Beam", "GLM4V"),
}
GAINLESS = {"nanochat"}  # its norm scales a vector as a whole, so P passes it
HOOKS_ONLY = {
    "MiniMax": "input_layernorm.* no last linear map",  # norms stand in the stream itself
    "Inkling": "attn_sconv.* no last linear map",  # what attention adds passes a convolution
    "AX-K1": r"mlp \(AXK1MoE\) is not the ablation of what it puts out",  # a norm inside the part
}
ONE_PART = ("Mamba", "Mamba2", "Falcon-Mamba", "Nemotron-H")  # what each block adds
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
    fewest = 1 if name in ONE_PART else 2
    assert all(len(writes) >= fewest for writes in lm.structure.block_writes)
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
    if name in HOOKS_ONLY:
        with pytest.raises(InputError, match=HOOKS_ONLY[name]):
            output_maps(lm.model, lm.structure)
        return
    untie_head(lm.model)
    P, before = projection(lm), probe_logits(lm)
    with lm.ablate(P):
        hooked = probe_logits(lm)
    with edited_weights(output_maps(lm.model, lm.structure), P):
        edited = probe_logits(lm)
    assert relative_gap(edited, hooked) < 1e-4
    assert relative_gap(hooked, before) > 0.02
    assert relative_gap(probe_logits(lm), before) < 1e-4  # restored


def own_projections(lm: LanguageModel) -> tuple[LayerProjections, list[Tensor]]:
    """Two directions a block, the first's at half strength, none of the last; and dense."""
    sets = torch.randn(lm.n_layers, 2, lm.d_model, generator=torch.Generator().manual_seed(2))
    strengths = [0.5, *[1.0] * (lm.n_layers - 2), 0.0]
    bases = [torch.linalg.qr(own.double().T)[0] for own in sets]
    identity = torch.eye(lm.d_model, dtype=torch.float64)
    dense = [identity - s * Q @ Q.T for s, Q in zip(strengths, bases, strict=True)]
    return LayerProjections.of_directions(list(sets), strengths), dense


@contextmanager
def dense_behind_writes(lm: LanguageModel, maps: Sequence[Tensor]) -> Iterator[None]:
    """Each block's writes mapped by a float64 matrix of its own, the embeddings' by the first."""

    def behind(P: Tensor) -> Any:
        def hook(_module: object, _args: object, output: Tensor | tuple[Tensor, ...]) -> Any:
            y = output if isinstance(output, Tensor) else output[0]
            mapped = (y.double() @ P.T).to(y.dtype)
            return mapped if isinstance(output, Tensor) else (mapped, *output[1:])

        return hook

    structure = lm.structure
    writes = [(w, maps[0]) for w in structure.embeddings]
    writes += [(w, P) for own, P in zip(structure.block_writes, maps, strict=True) for w in own]
    handles = [w.module.register_forward_hook(behind(P)) for w, P in writes]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_each_blocks_writes_lose_its_own_directions(name: str) -> None:
    """As dense algebra does it behind every write."""
    lm = language_model(name)
    layered, maps = own_projections(lm)
    before = block_outputs(lm)
    with dense_behind_writes(lm, maps):
        expected = block_outputs(lm)
    with lm.ablate(layered):
        actual = block_outputs(lm)
    assert relative_gap(actual, expected) < 1e-5
    assert relative_gap(before, expected) > 0.01


@pytest.mark.parametrize("name", ["Llama", "Gemma2", "BLOOM", "Mixtral", "Mamba2", "Qwen3-Next"])
def test_ablations_of_either_kind_share_a_batch(name: str) -> None:
    lm = language_model(name)
    layered, _ = own_projections(lm)
    last = LayerProjections([*[None] * (lm.n_layers - 1), layered.at(0)])
    ablations = [layered, projection(lm), last]
    rows = RowProjections(ablations)
    found: dict[int, Tensor] = {}
    with lm.ablate(rows):
        for places, log_p in lm.next_token_log_probabilities(PROMPTS, 8, rows):
            found.update(zip(places, log_p, strict=True))
    for lane, one in enumerate(ablations):
        alone = first_token_log_probabilities(lm, PROMPTS, 8, one)
        own = torch.stack([found[lane * len(PROMPTS) + i] for i in range(len(PROMPTS))])
        torch.testing.assert_close(own, alone, rtol=1e-3, atol=1e-3)


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
    if name in NORMED - GAINLESS:
        assert share["projection"] > 1e-3
        assert leaked > 1e-3
    else:
        assert share["projection"] < 1e-6
        assert leaked < 1e-6


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_what_norms_in_a_block_read_has_no_share_along_ablated_directions(name: str) -> None:
    """Where it counts: a part that adds the residual itself hides a read from the block's sum."""
    lm = language_model(name)
    P = projection(lm, "subspace")
    written: list[Tensor] = []
    shares: dict[str, float] = {}

    def wrote(_module: object, _args: object, output: Tensor | tuple[Tensor, ...]) -> None:
        written.append(output if isinstance(output, Tensor) else output[0])

    def reads(path: str) -> Any:
        def hook(_module: object, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
            stream = args[0] if args else kwargs["hidden_states"]
            own = [x for x in written if x.shape == stream.shape]
            if stream.shape[-1] == lm.d_model and not any(torch.equal(stream, x) for x in own):
                vectors = stream.double()
                shares[path] = float((vectors @ P.A).norm() / vectors.norm())

        return hook

    handles = [w.module.register_forward_hook(wrote) for w in lm.structure.writes]
    for i, block in enumerate(lm.structure.blocks):
        for child_name, child in block.named_children():
            if is_norm(child) and "norm" in type(child).__name__.lower():
                path = f"{i}.{child_name}"
                handles.append(child.register_forward_pre_hook(reads(path), with_kwargs=True))
    try:
        with replace(lm, site="residual").ablate(P):
            lm.model(input_ids=torch.tensor([lm.token_ids("Hello")]), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    assert all(share < 1e-4 for share in shares.values()), shares
    if name in ("BLOOM", "Llama", "MPT", "GPT-2"):
        assert len(shares) == 2 * lm.n_layers  # both norms of every block


def test_a_part_with_a_block_inside_it_is_looked_into() -> None:
    """Its output is the block's only term, but what is read inside it is not yet ablated."""

    class Inner(torch.nn.Module):
        def __init__(self, block: torch.nn.Module) -> None:
            super().__init__()
            self.first, self.second = block.self_attn, block.mlp
            self.one, self.two = block.input_layernorm, block.post_attention_layernorm

        def forward(self, hidden_states: Tensor, **kwargs: Any) -> Tensor:
            first = self.first(hidden_states=self.one(hidden_states), **kwargs)[0]
            return first + self.second(self.two(hidden_states + first))

    class Block(torch.nn.Module):
        def __init__(self, block: torch.nn.Module) -> None:
            super().__init__()
            self.inner, self.attention_type = Inner(block), None

        def forward(self, hidden_states: Tensor, **kwargs: Any) -> Tensor:
            return hidden_states + self.inner(hidden_states, **kwargs)

    model = build("Llama")
    ids = torch.tensor([[5, 6, 7, 8, 9, 10]])
    expected = model(input_ids=ids).logits
    for i, block in enumerate(model.model.layers):
        model.model.layers[i] = Block(block)
    torch.testing.assert_close(model(input_ids=ids).logits, expected)
    structure = find_structure(model, ids)
    assert [w.path for w in structure.block_writes[0]] == ["inner.first", "inner.second"]


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("Gemma3nTextConfig", {"layer_types": ["full_attention"] * 3, "num_kv_shared_layers": 0}),
        ("DeepseekV4Config", {}),
    ],
)
def test_several_streams_side_by_side_are_refused_in_a_sentence(
    kind: str, settings: dict[str, Any]
) -> None:
    usual = {**USUAL, "head_dim": 8, "sliding_window": 8, "vocab_size_per_layer_input": 261}
    usual |= {"hidden_size_per_layer_input": 8, "n_routed_experts": 4, "moe_intermediate_size": 16}
    config = getattr(transformers, kind)(**usual, **settings)
    model = transformers.AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    with pytest.raises(InputError, match="not one vector a token"):
        find_structure(model, torch.tensor([[5, 6, 7, 8, 9, 10]]))


_LINEAR = {"mamba_d_state": 8, "n_mamba_heads": 8}
_OWN_FORMS = {  # architectures whose blocks do not add up, and what is said of each
    "Zaya": ({"num_experts_per_tok": 1}, "the first block's input is not the sum"),
    "Zamba": (
        {
            **{**_LINEAR, "n_mamba_heads": 2, "num_hidden_layers": 6},
            **{"attn_layer_period": 3, "attn_layer_offset": 1},
        },
        "mamba_decoder.input_layernorm of block 2 reads the residual stream where",
    ),
    "Zamba2": (
        {
            **{**_LINEAR, "mamba_headdim": 8, "mamba_ngroups": 1, "chunk_size": 16},
            **{"num_mem_blocks": 1, "num_key_value_heads": 4},
            "layers_block_type": ["linear_attention", "hybrid", "linear_attention"],
        },
        "mamba_decoder.input_layernorm of block 1 reads the residual stream where",
    ),
    "LongcatFlash": (
        {
            **{"q_lora_rank": 16, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "v_head_dim": 8},
            **{"qk_nope_head_dim": 4, "num_layers": 2, "num_hidden_layers": 4, "moe_topk": 2},
            **{"ffn_hidden_size": 48, "expert_ffn_hidden_size": 16, "zero_expert_num": 2},
        },
        "no list of 4 decoder blocks",
    ),
    "Inkling2Text": ({}, "block 0's output is not the sum"),
    "Inkling2LoopText": ({}, "block 0's output is not the sum"),
    "HrmText": ({}, "no list of 24 decoder blocks"),
    "Doge": ({}, "block 0's output is not the sum"),
    "Dory": ({}, "the first block's input is not the sum"),
    "HYV4": ({}, "not one vector a token"),
    "Qwen4ExpText": ({}, "not one vector a token"),
}


@pytest.mark.parametrize("kind", _OWN_FORMS)
def test_what_does_not_add_up_is_refused_in_a_sentence(kind: str) -> None:
    torch.manual_seed(0)
    changes, words = _OWN_FORMS[kind]
    config_class = getattr(transformers, f"{kind}Config")
    named = getattr(config_class, "attribute_map", {})
    usual = {**USUAL, "head_dim": 8, "n_routed_experts": 4, "moe_intermediate_size": 16}
    usual |= {"num_experts": 4, "num_experts_per_tok": 2}
    config = config_class(**{named.get(k, k): v for k, v in usual.items()} | changes)
    model = transformers.AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.2)
    with pytest.raises(InputError, match=words) as refused:
        find_structure(model, torch.tensor([[5, 6, 7, 8, 9, 10]]))
    assert len(refused.value.problems) == 1
    assert "\n" not in str(refused.value)


def test_infinite_logits_of_masked_tokens_give_finite_numbers() -> None:
    lm = replace(language_model("Llama"), model=build("Llama"))
    lm = replace(lm, structure=find_structure(lm.model, torch.tensor([[5, 6, 7, 8, 9, 10]])))
    unmasked = probe_logits(lm)

    def mask(_module: object, _args: object, logits: Tensor) -> Tensor:
        return logits.index_fill(-1, torch.tensor([3, 200]), -torch.inf)

    lm.model.lm_head.register_forward_hook(mask)
    base = first_token_log_probabilities(lm, PROMPTS, 3)
    ablated = first_token_log_probabilities(lm, PROMPTS, 3, projection(lm))
    assert 0 < mean_kl(base, ablated) < 50
    assert base[:, 3].exp().max() == 0
    assert 0 < Drift(lm, ["Hi"], ["Hello there"], 1).under(projection(lm)) < 50
    assert relative_gap(probe_logits(lm), probe_logits(lm)) == 0
    assert relative_gap(probe_logits(lm), unmasked) == torch.inf


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_left_padded_batches_equal_single_prompts(name: str) -> None:
    lm = language_model(name)
    layers = range(lm.n_layers)
    batch = residual_stream(lm, PROMPTS, layers, batch_size=3)
    single = residual_stream(lm, PROMPTS, layers, batch_size=1)
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
