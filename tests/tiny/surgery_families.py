"""Tiny configurations of decoder families, in the style of 5.23 and as older files have them.

`new` is what the library writes today, with every per-layer list stated. The older styles
leave out what the class derives, or state it by a period, a threshold or a pattern.
"""

from transformers import CONFIG_MAPPING

DEPTH = 8

SIZES = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": DEPTH,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0,
    "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2, "sliding_window": 4,
    # experts
    "num_local_experts": 4, "num_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2,
    "moe_intermediate_size": 16, "n_shared_experts": 1, "n_group": 1, "topk_group": 1,
    "shared_expert_intermediate_size": 16, "shared_intermediate_size": 16, "moe_topk": 2,
    "num_shared_experts": 1, "expert_ffn_hidden_size": 16, "moe_num_experts": 4, "moe_k": 2,
    # low-rank attention
    "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8,
    "v_head_dim": 8, "index_head_dim": 16, "index_n_heads": 2, "index_topk": 4,
    # linear attention and state spaces
    "linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 8,
    "linear_value_head_dim": 8, "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_n_groups": 1,
    "mamba_d_state": 8, "mamba_chunk_size": 8, "mamba_num_heads": 4, "mamba_head_dim": 16,
    "ssm_state_size": 8, "chunk_size": 8, "n_groups": 1, "lru_width": 32, "mamba_d_ssm": 64,
    "attention_window_size": 4, "use_mamba_kernels": False, "block_size": 8, "mamba_expand": 2,
    "mamba_dt_rank": 4, "conv_L_cache": 3,
    # older names
    "n_embd": 32, "n_head": 4, "n_layer": DEPTH, "n_positions": 64, "n_inner": 48, "n_ctx": 64,
    "rotary_dim": 4, "num_layers": DEPTH, "num_heads": 4, "window_size": 4, "d_model": 32,
    "n_heads": 4, "n_layers": DEPTH, "max_seq_len": 64, "ffn_dim": 48, "word_embed_proj_dim": 32,
    "attention_heads": 4, "dff": 48,
}  # fmt: skip


LOW_RANK = {"head_dim": 8, "num_key_value_heads": 4}
OVERRIDES = {
    "youtu": LOW_RANK, "longcat_flash": LOW_RANK, "minicpm3": LOW_RANK, "deepseek_v2": LOW_RANK,
    "deepseek_v3": LOW_RANK, "deepseek_v32": LOW_RANK, "glm_moe_dsa": LOW_RANK,
    "axk1": LOW_RANK, "axk2": LOW_RANK, "glm4_moe_lite": LOW_RANK,
    "gpt_neo": {"attention_types": [[["global", "local"], DEPTH // 2]]},
    "zaya": {"num_experts_per_tok": 1},
    "gemma4_text": {"hidden_size_per_layer_input": 0, "num_kv_shared_layers": 0,
                    "vocab_size_per_layer_input": 64, "global_head_dim": 8},
    "jetmoe": {"kv_channels": 8},
    "cpmant": {"max_distance": 16, "prompt_length": 4, "prompt_types": 2, "segment_types": 2,
               "position_bias_num_buckets": 16, "position_bias_max_distance": 16, "dim_head": 8},
}  # fmt: skip


def fields(model_type):
    return {
        name
        for base in CONFIG_MAPPING[model_type].__mro__
        for name in getattr(base, "__annotations__", {})
    }


def config_of(model_type, **more):
    known = fields(model_type)
    sizes = {name: value for name, value in SIZES.items() if name in known}
    return CONFIG_MAPPING[model_type](**(sizes | OVERRIDES.get(model_type, {}) | more))
