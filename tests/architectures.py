"""Tiny random models of many architectures, each made from its config class."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
import transformers
from transformers import PreTrainedModel

from conftest import tiny_tokenizer
from somatlas.models.batches import head_cache_is_exact, padding_is_exact
from somatlas.models.chat import chat_token_ids
from somatlas.models.language_model import LanguageModel
from somatlas.models.packed import pack_linears
from somatlas.models.structure import find_structure

_SPECIAL = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
USUAL = {
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
_HEADS = {"head_dim": 8}
_WINDOW = {**_HEADS, "sliding_window": 8}
_GEMMA = {**_WINDOW, "query_pre_attn_scalar": 8}
_LATENT = {  # DeepSeek's attention
    "num_key_value_heads": 4,
    "q_lora_rank": 16,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4,
    "v_head_dim": 8,
}
_ROUTED = {**_EXPERTS, "n_routed_experts": 4, "n_shared_experts": 1, "n_group": 2, "topk_group": 1}
_DENSE_FIRST = {"first_k_dense_replace": 1}
# DeepSeek's sparse attention, which keeps more tokens than a prompt has (2048 in the real ones).
_INDEXED = {"index_topk": 512, "index_head_dim": 8, "index_n_heads": 2}
_MROPE = {"rope_theta": 1e4, "rope_type": "default", "mrope_section": [2, 1, 1]}
_DELTA = {  # Qwen3-Next's linear attention
    **_HEADS,
    "num_hidden_layers": 4,
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
_MAMBA2 = {
    "mamba_n_heads": 8,
    "mamba_d_head": 8,
    "mamba_d_state": 8,
    "mamba_n_groups": 1,
    "mamba_chunk_size": 16,
}
_VISION = {"hidden_size": 16, "intermediate_size": 16}
_QWEN_VISION = {**_VISION, "depth": 1, "num_heads": 2, "out_hidden_size": 32, "patch_size": 4}

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
    "DeepSeek-V3": ("DeepseekV3Config", {**_LATENT, **_ROUTED, **_DENSE_FIRST}),
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
        {**_EXPERTS, **_DELTA, "num_experts": 4, "shared_expert_intermediate_size": 16},
    ),
}
# Architectures whose exports are tested too; of the others the forms in memory are compared.
EXPORTED = tuple(ARCHITECTURES)
ARCHITECTURES |= {
    "Qwen3.5": ("Qwen3_5TextConfig", _DELTA),
    "Qwen3.5-MoE": (
        "Qwen3_5MoeTextConfig",
        {**_EXPERTS, **_DELTA, "num_experts": 4, "shared_expert_intermediate_size": 16},
    ),
    "Qwen3.5 (image-text)": ("Qwen3_5Config", _DELTA),
    "Qwen2.5-VL": (
        "Qwen2_5_VLConfig",
        {"rope_parameters": _MROPE},
    ),
    "Qwen2-MoE": (
        "Qwen2MoeConfig",
        {**_EXPERTS, "num_experts": 4, "shared_expert_intermediate_size": 16},
    ),
    "Gemma": ("GemmaConfig", _HEADS),
    "Gemma4 (text)": (
        "Gemma4TextConfig",
        {**_WINDOW, "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 261}
        | {"global_head_dim": 8, "num_kv_shared_layers": 0},
    ),
    "Gemma4 Unified": ("Gemma4UnifiedTextConfig", {**_WINDOW, "global_head_dim": 8}),
    "VaultGemma": ("VaultGemmaConfig", _GEMMA),
    "RecurrentGemma": ("RecurrentGemmaConfig", {"lru_width": 32, "attention_window_size": 8}),
    "Llama4": (
        "Llama4TextConfig",
        {**_HEADS, "num_local_experts": 4, "num_experts_per_tok": 1, "intermediate_size_mlp": 48},
    ),
    "DeepSeek-V2": (
        "DeepseekV2Config",
        {**_LATENT, **_ROUTED, **_DENSE_FIRST, "head_dim": 4, "topk_method": "greedy"},
    ),
    "GLM": ("GlmConfig", _HEADS),
    "GLM4": ("Glm4Config", _HEADS),
    "GLM4-MoE": ("Glm4MoeConfig", {**_HEADS, **_ROUTED, **_DENSE_FIRST}),
    "GLM4-MoE-Lite": ("Glm4MoeLiteConfig", {**_LATENT, **_ROUTED}),
    "Granite-MoE": ("GraniteMoeConfig", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "Granite-MoE-Hybrid": (
        "GraniteMoeHybridConfig",
        {
            **_MAMBA2,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "shared_intermediate_size": 16,
            "layer_types": ["mamba", "attention", "mamba"],
        },
    ),
    "Granite-SWA": ("GraniteSWAConfig", _WINDOW),
    "Cohere": ("CohereConfig", {}),
    "OLMo": ("OlmoConfig", {}),
    "OLMo3": ("Olmo3Config", {"sliding_window": 8}),
    "OLMoE": ("OlmoeConfig", {"num_experts": 4, "num_experts_per_tok": 2}),
    "OLMo-Hybrid": (
        "OlmoHybridConfig",
        {**_DELTA, "layer_types": ["linear_attention"] * 3 + ["full_attention"]},
    ),
    "FlexOLMo": ("FlexOlmoConfig", {"num_experts": 4, "num_experts_per_tok": 2}),
    "BLOOM": ("BloomConfig", {"n_layer": 3, "n_head": 4}),
    "MPT": ("MptConfig", {"d_model": 32, "n_layers": 3, "n_heads": 4, "expansion_ratio": 2}),
    "OPT": ("OPTConfig", {"ffn_dim": 48, "word_embed_proj_dim": 32, "do_layer_norm_before": True}),
    "BioGPT": ("BioGptConfig", {}),
    "GPT-BigCode": ("GPTBigCodeConfig", {"n_embd": 32, "n_layer": 3, "n_head": 4}),
    "GPT-J": ("GPTJConfig", {"n_embd": 32, "n_layer": 3, "n_head": 4, "rotary_dim": 4}),
    "GPT-Neo": (
        "GPTNeoConfig",
        {"num_layers": 3, "num_heads": 4, "attention_types": [[["global", "local", "global"], 1]]},
    ),
    "Phi": ("PhiConfig", {}),
    "PhiMoE": ("PhimoeConfig", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "Starcoder2": ("Starcoder2Config", {}),
    "Persimmon": ("PersimmonConfig", {}),
    "Nemotron": ("NemotronConfig", {}),
    "SmolLM3": ("SmolLM3Config", {}),
    "Seed-OSS": ("SeedOssConfig", _HEADS),
    "Helium": ("HeliumConfig", _HEADS),
    "Apertus": ("ApertusConfig", {}),
    "Arcee": ("ArceeConfig", {}),
    "AFMoE": ("AfmoeConfig", {**_EXPERTS, **_WINDOW, "num_experts": 4, "num_dense_layers": 1}),
    "Bamba": ("BambaConfig", {**_MAMBA2, "attn_layer_indices": [1]}),
    "BitNet": ("BitNetConfig", {}),
    "CWM": ("CwmConfig", _WINDOW),
    "DiffLlama": ("DiffLlamaConfig", {}),
    "dots.llm1": ("Dots1Config", {**_ROUTED, **_DENSE_FIRST}),
    "ERNIE-4.5": ("Ernie4_5Config", _HEADS),
    "ERNIE-4.5-MoE": (
        "Ernie4_5_MoeConfig",
        {"moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": 16},
    ),
    "EXAONE-4": ("Exaone4Config", {"sliding_window": 8}),
    "EXAONE-MoE": ("ExaoneMoeConfig", {**_EXPERTS, "sliding_window": 8, "num_experts": 4}),
    "Falcon-Mamba": ("FalconMambaConfig", {"state_size": 8}),
    "Mamba": ("MambaConfig", {"state_size": 8}),
    "Mamba2": ("Mamba2Config", {"num_heads": 8, "head_dim": 8, "state_size": 8, "n_groups": 1}),
    "Hunyuan": ("HunYuanDenseV1Config", _HEADS),
    "Hunyuan-MoE": ("HunYuanMoEV1Config", {**_EXPERTS, **_HEADS, "num_experts": 4, "moe_topk": 2}),
    "Hunyuan-V3": ("HYV3Config", {**_EXPERTS, **_HEADS, "num_experts": 4}),
    "HyperCLOVA X": ("HyperCLOVAXConfig", {}),
    "Jais2": ("Jais2Config", {}),
    "Jamba": (
        "JambaConfig",
        {
            **{"num_experts": 4, "num_experts_per_tok": 2, "mamba_d_state": 8},
            **{"attn_layer_period": 3, "attn_layer_offset": 1},
        },
    ),
    "JetMoE": (
        "JetMoeConfig",
        {"kv_channels": 8, "num_local_experts": 4, "num_key_value_heads": 2},
    ),
    "Laguna": (
        "LagunaConfig",
        {**_EXPERTS, **_WINDOW, "num_experts": 4, "shared_expert_intermediate_size": 16},
    ),
    "LFM3": ("Lfm3Config", {**_WINDOW, "layer_types": ["conv", "full_attention", "conv"]}),
    "Mellum": ("MellumConfig", {**_EXPERTS, **_WINDOW, "num_experts": 4}),
    "MiMo-V2-Flash": ("MiMoV2FlashConfig", {**_EXPERTS, **_WINDOW, "n_routed_experts": 4}),
    "MiniCPM3": ("MiniCPM3Config", _LATENT),
    "MiniMax": ("MiniMaxConfig", {**_HEADS, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "MiniMax-M2": ("MiniMaxM2Config", {**_HEADS, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "Ministral": ("MinistralConfig", _WINDOW),
    "Ministral3": ("Ministral3Config", _HEADS),
    "nanochat": ("NanoChatConfig", {}),
    "Solar-Open": ("SolarOpenConfig", {**_ROUTED, **_HEADS}),
    "xLSTM": ("xLSTMConfig", {"hidden_size": 64, "num_heads": 4, "qk_dim_factor": 1.0}),
    "Youtu": ("YoutuConfig", _LATENT),
    "Bailing-Hybrid": (
        "BailingHybridConfig",
        {
            **_LATENT,
            **_ROUTED,
            **_HEADS,
            **_DENSE_FIRST,
            "layer_types": ["linear_attention", "full_attention", "linear_attention"],
        },
    ),
    "Kolibri": ("Kolibri1Config", {**_EXPERTS, **_WINDOW, "num_experts": 4}),
    "Beam": ("BeamConfig", _HEADS),
    "Flint": ("FlintConfig", {**_EXPERTS, **_WINDOW, "num_experts": 4}),
    "AX-K1": ("AXK1Config", {**_LATENT, **_ROUTED}),
    "AX-K2": (
        "AXK2Config",
        {**_LATENT, **_ROUTED, **_INDEXED, "head_dim": 4, "gated_norm_rank": 4},
    ),
    "DeepSeek-V3.2": (
        "DeepseekV32Config",
        {**_LATENT, **_ROUTED, **_DENSE_FIRST, **_INDEXED, "head_dim": 4},
    ),
    "GLM-5": (
        "GlmMoeDsaConfig",
        {**_LATENT, **_ROUTED, **_DENSE_FIRST, **_INDEXED, "head_dim": 4},
    ),
    "Kimi-Linear": (
        "KimiLinearConfig",
        {
            **_LATENT,
            **_ROUTED,
            **{"q_lora_rank": None, "num_local_experts": 4},
            **{"linear_head_dim": 8, "linear_num_heads": 4},
            "layer_types": ["linear_attention", "full_attention", "linear_attention"],
        },
    ),
    "LFM2-MoE": (
        "Lfm2MoeConfig",
        {
            **_EXPERTS,
            **{"num_experts": 4, "num_dense_layers": 1},
            "layer_types": ["conv", "full_attention", "conv"],
        },
    ),
    "Inkling": (
        "InklingTextConfig",
        {
            **_EXPERTS,
            **_HEADS,
            **{"swa_num_attention_heads": 4, "swa_num_key_value_heads": 2, "swa_head_dim": 8},
            **{"sliding_window_size": 8, "d_rel": 4, "rel_extent": 16, "n_routed_experts": 4},
        },
    ),
    "Nemotron-H": (
        "NemotronHConfig",
        {
            **_EXPERTS,
            **_HEADS,
            **{"ssm_state_size": 8, "mamba_num_heads": 8, "mamba_head_dim": 8, "n_groups": 1},
            **{"chunk_size": 16, "n_routed_experts": 4, "moe_shared_expert_intermediate_size": 16},
            "layers_block_type": ["mamba", "attention", "moe"],
        },
    ),
    "Step-3.7": (
        "Step3p7Config",
        {
            **_EXPERTS,
            **_WINDOW,
            **{"num_local_experts": 4, "n_routed_experts": 4, "share_expert_dim": 16},
        },
    ),
    "GLM4V": ("Glm4vConfig", {"rope_parameters": _MROPE}),
    "Mistral-Large4": (
        "MistralLarge4Config",
        {**_LATENT, **_ROUTED, **_INDEXED, "head_dim": 4},
    ),
    "Cohere2-MoE": ("Cohere2MoeConfig", {**_WINDOW, "num_experts": 4, "num_experts_per_tok": 2}),
    "Apertus-1.5": ("Apertus1p5TextConfig", {}),
    "DBRX": (
        "DbrxConfig",
        {
            "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 1e4},
            "ffn_config": {
                **{"ffn_hidden_size": 16, "hidden_size": 32},
                **{"moe_num_experts": 4, "moe_top_k": 2},
            },
        },
    ),
    "dots3-note": (
        "Dots3NoteTextConfig",
        {
            **_LATENT,
            **_ROUTED,
            **_INDEXED,
            **_WINDOW,
            **{"n_group": 1, "shared_experts_intermediate_size": 16},
        },
    ),
    "Granite-MoE-SWA": (
        "GraniteMoeSWAConfig",
        {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 8},
    ),
    "Granite-MoE-Shared": (
        "GraniteMoeSharedConfig",
        {"num_local_experts": 4, "num_experts_per_tok": 2, "shared_intermediate_size": 16},
    ),
    "Lara-Mini": (
        "LaraMiniConfig",
        {
            **_EXPERTS,
            **_WINDOW,
            **_DELTA,
            **{"num_experts": 4, "shared_expert_intermediate_size": 16},
        },
    ),
    "MiniMax-M3": (
        "MiniMaxM3VLTextConfig",
        {
            **_HEADS,
            **{"num_experts_per_tok": 2, "num_local_experts": 4, "rotary_dim": 4},
            **{"dense_intermediate_size": 48, "shared_intermediate_size": 16},
            **{"index_n_heads": 2, "index_head_dim": 8},
            **{"index_block_size": 8, "index_topk_blocks": 2},
            "layer_types": ["full_attention", "minimax_m3_sparse", "minimax_m3_sparse"],
        },
    ),
    "Qwen2-VL": ("Qwen2VLConfig", {"rope_parameters": _MROPE}),
    "Qwen3-VL": ("Qwen3VLConfig", {**_HEADS, "rope_parameters": _MROPE}),
    "Qwen3-VL-MoE": (
        "Qwen3VLMoeConfig",
        {**_EXPERTS, **_HEADS, "num_experts": 4, "rope_parameters": _MROPE},
    ),
}


def build(name: str, seed: int = 0) -> PreTrainedModel:
    """The tiny model, every parameter moved by chance, so that biases and gains matter too."""
    torch.manual_seed(seed)
    kind, changes = ARCHITECTURES[name]
    if not hasattr(transformers, kind):  # the lowest version allowed has fewer (make bounds)
        pytest.skip(f"transformers {transformers.__version__} has no {kind}")
    config_class = getattr(transformers, kind)
    named = getattr(config_class, "attribute_map", {})
    usual = {named.get(key, key): value for key, value in USUAL.items()}
    if name == "Gemma3 (image-text)":
        config = config_class(
            text_config={**USUAL, **ARCHITECTURES["Gemma3 (text)"][1]},
            vision_config={
                **_VISION,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "image_size": 28,
                "patch_size": 14,
            },
            mm_tokens_per_image=4,
        )
    elif "vision_config" in getattr(config_class, "sub_configs", {}):
        vision = {**_QWEN_VISION, "fullatt_block_indexes": [0], "num_position_embeddings": 16}
        config = config_class(text_config={**USUAL, **changes}, vision_config=vision, **_SPECIAL)
        config.architectures = [config_class.__name__.replace("Config", "ForConditionalGeneration")]
    else:
        config = config_class(**{**usual, **changes})
    if config.architectures:
        model = getattr(transformers, config.architectures[0])(config)
    else:
        model = transformers.AutoModelForCausalLM.from_config(config)
    model.eval().requires_grad_(False)
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
        pads=padding_is_exact(model, ids),
    )
