"""Tiny configurations of decoder families, in the style of 5.23 and as older files have them.

`new` is what the library writes today, with every per-layer list stated. The older styles
leave out what the class derives, or state it by a period, a threshold or a pattern.
"""

from dataclasses import dataclass, field

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
    "kimi_linear": LOW_RANK | {"linear_attn_config": {
        "num_heads": 2, "head_dim": 8, "short_conv_kernel_size": 4,
        "full_attn_layers": [4, 8], "kda_layers": [1, 2, 3, 5, 6, 7]}},
    "bamba": {"attn_layer_indices": [2, 5]},
    "granitemoehybrid": {"layer_types": (["linear_attention"] * 3 + ["full_attention"]) * 2},
    "lfm2": {"layer_types": (["conv"] * 3 + ["full_attention"]) * 2},
    "lfm2_moe": {"layer_types": (["conv"] * 3 + ["full_attention"]) * 2, "num_dense_layers": 2},
    "dbrx": {"attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8.0},
             "ffn_config": {"ffn_hidden_size": 48, "moe_num_experts": 4, "moe_top_k": 2}},
    "nemotron_h": {"layers_block_type": ["mamba", "moe", "attention", "mlp"] * 2},
    "gpt_neo": {"attention_types": [[["global", "local"], DEPTH // 2]]},
    "zaya": {"num_experts_per_tok": 1},
    "gemma4_text": {"hidden_size_per_layer_input": 0, "num_kv_shared_layers": 0,
                    "vocab_size_per_layer_input": 64,
        # Without per-layer inputs the library slices None unless hidden states are asked for.
        "output_hidden_states": True, "global_head_dim": 8},
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


BLOCKS = ("2:5", "4:6", "0:3", "5:8")


@dataclass(frozen=True)
class Case:
    """One configuration.

    `config` goes to the configuration class; `stated` replaces keys of the saved config.json
    (None removes one), which must not change what the source computes; `refused` maps a block
    to a part of the reason.
    """

    model_type: str
    config: dict = field(default_factory=dict)
    stated: dict = field(default_factory=dict)
    refused: dict = field(default_factory=dict)
    cached: bool = True


def without(*keys):
    return dict.fromkeys(keys)


def _plain():
    """Families that need the layer count alone."""
    names = (
        "llama mistral ministral3 gemma phi phi3 stablelm starcoder2 olmo olmo2 cohere granite glm "
        "glm4 ernie4_5 hunyuan_v1_dense apertus seed_oss arcee helium nemotron bitnet youtu "
        "nanochat jais2 persimmon hyperclovax doge aria_text internlm3 iquestcoder gptj codegen "
        "openai-gpt ctrl gpt_bigcode bloom falcon mpt dbrx gpt_neox opt biogpt xglm mixtral olmoe "
        "flex_olmo phimoe granitemoe granitemoeshared jetmoe minimax_m2 solar_open longcat_flash "
        "falcon_h1 gpt2"
    )
    return {name: Case(name, cached=name != "openai-gpt") for name in names.split()}


FULL, SLIDING, LINEAR = "full_attention", "sliding_attention", "linear_attention"
KINDS = "layer_types"
EXPERTS = "mlp_layer_types"
CROSSING = "crosses that boundary"


def _windows():
    """Attention that alternates: stated by list, by period, or left to the class."""
    sliding = {"use_sliding_window": True, "max_window_layers": 3}
    cases = {
        "phi3 window": Case("phi3", {"sliding_window": 4}),
        "qwen2 plain": Case("qwen2"),
        "qwen2 plain, no list": Case("qwen2", {"max_window_layers": 8}, without(KINDS)),
        "qwen2 window": Case("qwen2", sliding),
        "qwen2 window, threshold": Case("qwen2", sliding, without(KINDS)),
        "qwen2 window, threshold at the end": Case(
            "qwen2", sliding | {"max_window_layers": 8}, without(KINDS)
        ),
        "qwen3 window": Case("qwen3", sliding),
        "qwen3 window, threshold": Case("qwen3", sliding, without(KINDS)),
        "ministral": Case("ministral"),
        "ministral, no list": Case("ministral", {}, without(KINDS)),
        "ministral mixed": Case("ministral", {KINDS: [FULL, SLIDING, SLIDING, SLIDING] * 2}),
        "gemma3_text period 3": Case(
            "gemma3_text",
            {KINDS: [FULL if (at + 1) % 3 == 0 else SLIDING for at in range(DEPTH)]},
            without(KINDS) | {"sliding_window_pattern": 3},
        ),
        "cohere2 period 3": Case(
            "cohere2",
            {KINDS: [FULL if (at + 1) % 3 == 0 else SLIDING for at in range(DEPTH)]},
            without(KINDS) | {"sliding_window_pattern": 3},
        ),
        "exaone4 period 3": Case(
            "exaone4", {"sliding_window_pattern": 3}, without(KINDS)
        ),
        "smollm3 window": Case("smollm3", {"use_sliding_window": True}),
        "smollm3 window, no lists": Case(
            "smollm3", {"use_sliding_window": True}, without(KINDS, "no_rope_layers")
        ),
        "smollm3 period 3": Case(
            "smollm3", {"no_rope_layer_interval": 3}, without(KINDS, "no_rope_layers")
        ),
        "modernbert-decoder": Case("modernbert-decoder", refused={"0:3": "attention norm"}),
        "modernbert-decoder, period": Case(
            "modernbert-decoder", {}, without(KINDS), refused={"0:3": "attention norm"}
        ),
        "gemma4_text": Case("gemma4_text", {KINDS: ([SLIDING] * 3 + [FULL]) * 2}),
        "gemma4_text shared keys": Case(
            "gemma4_text", {"num_kv_shared_layers": 2}, refused=dict.fromkeys(BLOCKS, "reuse")
        ),
        "llama4_text": Case("llama4_text", {"interleave_moe_layer_step": 2}),
        "llama4_text, no lists": Case(
            "llama4_text",
            {"interleave_moe_layer_step": 2},
            without(KINDS, "no_rope_layers", "moe_layers"),
        ),
        "llama4_text period 3": Case(
            "llama4_text",
            {"no_rope_layer_interval": 3, "interleave_moe_layer_step": 3},
            without(KINDS, "no_rope_layers", "moe_layers"),
        ),
    }  # fmt: skip
    by_class = "gemma2 vaultgemma gpt_oss gemma3_text cohere2 olmo3 cwm kolibri1 exaone4"
    for name in by_class.split():
        cases[name] = Case(name)
        cases[f"{name}, no list"] = Case(name, {}, without(KINDS))
    for name in ("smollm3", "granite_swa", "granitemoe_swa"):
        cases[name] = Case(name)
        cases[f"{name}, no lists"] = Case(
            name, {}, without(KINDS, "no_rope_layers", "layer_rope_theta")
        )
    return cases


def _single_layers():
    """Families in which single layers, or runs of them, differ."""
    inverse = dict.fromkeys(BLOCKS, "divides attention")
    return {
        "gpt2 inverse scaling": Case(
            "gpt2", {"scale_attn_by_inverse_layer_idx": True}, refused=inverse
        ),
        "gpt_neox_japanese": Case("gpt_neox_japanese", refused={"5:8": "attention bias"}),
        "gpt_neo": Case("gpt_neo"),
        "gpt_neo, no expansion": Case("gpt_neo", {}, without("attention_layers")),
        "gpt_neo runs": Case(
            "gpt_neo",
            {"attention_types": [[["global"], 3], [["local", "global"], 2], [["local"], 1]]},
        ),
        "minicpm3": Case("minicpm3", {"scale_depth": 1.4}),
        "zaya": Case("zaya", refused={"0:3": "router"}),
        "zaya, no list": Case("zaya", {}, without(KINDS), refused={"0:3": "router"}),
    }  # fmt: skip


def _experts():
    """Dense and expert layers mixed."""
    head = {"first_k_dense_replace": 3}
    crossing = {"2:5": CROSSING}
    sparse = {"decoder_sparse_step": 2, "mlp_only_layers": [5]}
    dense_first = ["dense"] * 3 + ["sparse"] * 5
    cases = {
        "qwen2_moe": Case("qwen2_moe"),
        "qwen2_moe steps": Case("qwen2_moe", sparse),
        "qwen2_moe window": Case(
            "qwen2_moe", {"use_sliding_window": True, "max_window_layers": 5}, without(KINDS)
        ),
        "qwen3_moe": Case("qwen3_moe"),
        "qwen3_moe steps": Case("qwen3_moe", sparse),
        "qwen3_moe dense layers": Case("qwen3_moe", {"mlp_only_layers": [0, 1, 4]}),
        "flint": Case("flint"),
        "flint, no lists": Case("flint", {}, without(KINDS, "mlp_only_layers")),
        "hunyuan_v1_moe": Case("hunyuan_v1_moe"),
        "hunyuan_v1_moe lists": Case("hunyuan_v1_moe", {"moe_topk": [1, 2, 2, 1, 1, 2, 2, 2]}),
        "deepseek_v2": Case("deepseek_v2", head, refused=crossing),
        "deepseek_v2 all experts": Case("deepseek_v2", {"first_k_dense_replace": 0}),
        "deepseek_v3": Case("deepseek_v3", head, refused=crossing),
        "deepseek_v3 prediction layer": Case(
            "deepseek_v3", head | {"num_nextn_predict_layers": 1}, refused=crossing
        ),
        "glm4_moe": Case("glm4_moe", head, refused=crossing),
        "dots1": Case("dots1", head, refused=crossing),
        "dots1 window, threshold": Case(
            "dots1", head | {"max_window_layers": 5}, without(KINDS), refused=crossing
        ),
        "afmoe": Case("afmoe", {"num_dense_layers": 3}, refused=crossing),
        "afmoe, no list": Case("afmoe", {"num_dense_layers": 3}, without(KINDS), refused=crossing),
        "lfm2_moe": Case("lfm2_moe", refused={"0:3": CROSSING}),
        "ernie4_5_moe": Case(
            "ernie4_5_moe",
            {"moe_layer_start_index": 1, "moe_layer_end_index": -1, "moe_layer_interval": 1},
            refused={"0:3": "no start, end and interval"},
        ),
        "ernie4_5_moe every other": Case(
            "ernie4_5_moe",
            {"moe_layer_start_index": 1, "moe_layer_end_index": -1, "moe_layer_interval": 2},
            refused=dict.fromkeys(("2:5", "0:3", "5:8"), "no start, end and interval"),
        ),
        "mimo_v2_flash": Case("mimo_v2_flash"),
        "mimo_v2_flash, no lists": Case("mimo_v2_flash", {}, without(KINDS, EXPERTS)),
        "mellum": Case("mellum", {KINDS: [FULL, SLIDING] * 4, EXPERTS: ["dense", "sparse"] * 4}),
        "cohere2_moe": Case("cohere2_moe"),
        "cohere2_moe, no lists": Case("cohere2_moe", {}, without(KINDS, EXPERTS)),
        "laguna": Case("laguna", {KINDS: [FULL, SLIDING, SLIDING, SLIDING] * 2}),
        "laguna, no lists": Case(
            "laguna", {}, without(KINDS, EXPERTS, "num_attention_heads_per_layer")
        ),
        "exaone_moe": Case("exaone_moe", {EXPERTS: dense_first, "sliding_window_pattern": 3}),
        "exaone_moe, threshold": Case(
            "exaone_moe",
            head | {EXPERTS: dense_first, "sliding_window_pattern": 3},
            without(KINDS, EXPERTS),
        ),
    }
    for name in ("deepseek_v32", "glm_moe_dsa", "axk1", "axk2"):
        cases[name] = Case(name, {EXPERTS: dense_first})
        cases[f"{name}, threshold"] = Case(
            name, {EXPERTS: dense_first}, without(EXPERTS, KINDS) | head
        )
    for name in ("glm4_moe_lite", "hy_v3"):
        cases[name] = Case(name)
        cases[f"{name}, no list"] = Case(name, {}, without(EXPERTS))
    return cases


def _hybrids():
    """Linear attention, convolutions and state spaces beside attention."""
    linear = [LINEAR, LINEAR, FULL] * 2 + [LINEAR, FULL]
    cases = {
        "lfm2": Case("lfm2"),
        "lfm2, indices": Case("lfm2", {}, without(KINDS) | {"full_attn_idxs": [3, 7]}),
        "lfm3": Case("lfm3"),
        "lfm3, no list": Case("lfm3", {}, without(KINDS)),
        "granitemoehybrid": Case("granitemoehybrid"),
        "kimi_linear": Case("kimi_linear"),
        "kimi_linear, indices": Case("kimi_linear", {}, without(KINDS, EXPERTS)),
        "bamba": Case("bamba"),
        "nemotron_h": Case("nemotron_h"),
        "nemotron_h, pattern": Case(
            "nemotron_h",
            {},
            without("layers_block_type") | {"hybrid_override_pattern": "ME*-ME*-"},
        ),
        "recurrent_gemma": Case("recurrent_gemma", cached=False),
        "jamba": Case(
            "jamba",
            {"attn_layer_period": 4, "attn_layer_offset": 2, "expert_layer_period": 2},
            refused=dict.fromkeys(("2:5", "0:3", "5:8"), "no period and offset"),
        ),
        "minimax": Case("minimax"),
        "olmo_hybrid": Case("olmo_hybrid"),
        "olmo_hybrid, no list": Case("olmo_hybrid", {}, without(KINDS)),
    }
    for name in ("qwen3_next", "qwen3_5_text", "qwen3_5_moe_text"):
        cases[name] = Case(name, {KINDS: linear})
        cases[f"{name}, no list"] = Case(name, {}, without(KINDS))
        cases[f"{name}, interval 2"] = Case(
            name,
            {KINDS: [LINEAR, FULL] * 4},
            without(KINDS) | {"full_attention_interval": 2},
        )
    return cases


CASES = _plain() | _windows() | _single_layers() | _experts() | _hybrids()
