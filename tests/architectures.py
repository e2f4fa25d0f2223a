"""Tiny random models of many architectures, each made from its config class."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel

from conftest import tiny_tokenizer
from somatlas.models.batches import head_cache_is_exact
from somatlas.models.chat import chat_token_ids
from somatlas.models.language_model import LanguageModel
from somatlas.models.packed import pack_linears
from somatlas.models.structure import find_structure

_SPECIAL = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
_USUAL = {
    **_SPECIAL,
    "vocab_size": 261,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
_EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 16}

# Name -> config class and what differs from the usual sizes.
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "Llama": ("LlamaConfig", {"attention_bias": True}),
    "Mistral": ("MistralConfig", {"sliding_window": 8}),
    "Qwen2": ("Qwen2Config", {}),
    "Qwen3": ("Qwen3Config", {"head_dim": 8}),
    "Gemma2": (
        "Gemma2Config",
        {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 8},
    ),
    "Gemma3 (text)": (
        "Gemma3TextConfig",
        {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 8},
    ),
    "Gemma3 (image-text)": ("Gemma3Config", {}),
    "Phi3": ("Phi3Config", {}),
    "OLMo2": ("Olmo2Config", {}),
    "Granite": (
        "GraniteConfig",
        {"embedding_multiplier": 3.0, "residual_multiplier": 0.4, "logits_scaling": 2.0},
    ),
    "Cohere2": ("Cohere2Config", {"sliding_window": 8}),
    "StableLM": ("StableLmConfig", {}),
    "GPT-2": (
        "GPT2Config",
        {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 512},
    ),
    "GPT-NeoX": ("GPTNeoXConfig", {}),
    "Falcon": ("FalconConfig", {"bias": True}),
    "Mixtral": ("MixtralConfig", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "Qwen3-MoE": ("Qwen3MoeConfig", {**_EXPERTS, "head_dim": 8, "num_experts": 4}),
    "DeepSeek-V3": (
        "DeepseekV3Config",
        {
            **_EXPERTS,
            "num_key_value_heads": 4,
            "n_routed_experts": 4,
            "n_shared_experts": 1,
            "first_k_dense_replace": 1,
            "n_group": 2,
            "topk_group": 1,
            "q_lora_rank": 16,
            "kv_lora_rank": 8,
            "qk_rope_head_dim": 4,
            "qk_nope_head_dim": 4,
            "v_head_dim": 8,
        },
    ),
    "GPT-OSS": (
        "GptOssConfig",
        {
            "head_dim": 8,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "sliding_window": 8,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
        },
    ),
    "LFM2": ("Lfm2Config", {"full_attn_idxs": [1], "block_multiple_of": 8}),
    "Falcon-H1": (
        "FalconH1Config",
        {
            "head_dim": 8,
            "mamba_d_ssm": 32,
            "mamba_n_heads": 4,
            "mamba_d_head": 8,
            "mamba_d_state": 8,
            "mamba_n_groups": 1,
            "mamba_chunk_size": 16,
            "embedding_multiplier": 2.0,
            "attention_out_multiplier": 0.6,
            "ssm_out_multiplier": 0.3,
        },
    ),
    "Qwen3-Next": (
        "Qwen3NextConfig",
        {
            **_EXPERTS,
            "num_hidden_layers": 4,
            "head_dim": 8,
            "num_experts": 4,
            "shared_expert_intermediate_size": 16,
            "linear_num_value_heads": 4,
            "linear_num_key_heads": 2,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
        },
    ),
}


def build(name: str, seed: int = 0) -> PreTrainedModel:
    """The tiny model, every parameter moved by chance, so that biases and gains matter too."""
    torch.manual_seed(seed)
    kind, changes = ARCHITECTURES[name]
    if name == "GPT-2":
        config = transformers.GPT2Config(**_SPECIAL, vocab_size=261, **changes)
    elif name == "Gemma3 (image-text)":
        config = transformers.Gemma3Config(
            text_config={**_USUAL, **ARCHITECTURES["Gemma3 (text)"][1]},
            vision_config={
                "hidden_size": 16,
                "intermediate_size": 16,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "image_size": 28,
                "patch_size": 14,
            },
            mm_tokens_per_image=4,
        )
    else:
        config = getattr(transformers, kind)(**{**_USUAL, **changes})
    model = transformers.AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


@cache
def language_model(name: str) -> LanguageModel:
    """The tiny model with the byte-level chat tokenizer, found and verified as any other."""
    model, tokenizer = build(name), tiny_tokenizer()
    pack_linears(model)
    tokenizer.padding_side = "left"
    ids = [chat_token_ids(tokenizer, text) for text in ("Hello there", "Hi")]
    return LanguageModel(
        model,
        tokenizer,
        find_structure(model, torch.tensor(ids[:1])),
        name,
        shares_head=head_cache_is_exact(model, ids),
    )
