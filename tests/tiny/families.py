"""Small random models of many families, built from their configuration classes."""

from functools import cache

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from surgeon.checkpoint.config import rewrite_config
from surgeon.checkpoint.stack import find_stack
from surgeon.models import decoder_layers

DEPTH, VOCABULARY = 6, 128

COMMON = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 64,
    "num_hidden_layers": DEPTH, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2, "initializer_range": 0.2,
}  # fmt: skip
HEADS = {**COMMON, "head_dim": 8}
EXPERTS = {**HEADS, "num_experts_per_tok": 2}

FAMILIES = {
    "llama": COMMON,
    "mistral": {**HEADS, "sliding_window": 64},
    "qwen2": {**COMMON, "use_sliding_window": True, "sliding_window": 8, "max_window_layers": 3},
    "qwen3": HEADS,
    "gemma2": {**HEADS, "sliding_window": 8, "query_pre_attn_scalar": 8},
    "gemma3_text": {**HEADS, "sliding_window": 8, "query_pre_attn_scalar": 8},
    "phi3": COMMON,
    "olmo2": COMMON,
    "mixtral": {**EXPERTS, "num_local_experts": 4},
    "qwen3_moe": {**EXPERTS, "num_experts": 4, "moe_intermediate_size": 32},
    "granite": {**COMMON, "logits_scaling": 3.0, "residual_multiplier": 0.7},
    "cohere": {**COMMON, "logit_scale": 0.3},
    "smollm3": COMMON,
    "stablelm": COMMON,
    "starcoder2": {**COMMON, "sliding_window": None},
    "gpt2": {
        "vocab_size": VOCABULARY, "n_embd": 32, "n_layer": DEPTH, "n_head": 4, "n_positions": 128,
        "bos_token_id": 0, "eos_token_id": 1, "initializer_range": 0.2,
    },
    "gpt_neox": {k: v for k, v in COMMON.items() if k != "num_key_value_heads"},
    "bloom": {"vocab_size": VOCABULARY, "hidden_size": 32, "n_layer": DEPTH, "n_head": 4,
              "initializer_range": 0.2},
    "opt": {"vocab_size": VOCABULARY, "hidden_size": 32, "ffn_dim": 64, "num_hidden_layers": DEPTH,
            "num_attention_heads": 4, "max_position_embeddings": 128, "word_embed_proj_dim": 32,
            "pad_token_id": 1, "init_std": 0.2},
}  # fmt: skip


@cache
def base_model(family):
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **FAMILIES[family])
    model = AutoModelForCausalLM.from_config(config).eval()
    # Some families start at the identity; random norms and biases make every layer count.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def separate_model(family, plan):
    """The plan as a model of its own: new object, own weights, own config."""
    base = base_model(family)
    raw = rewrite_config({"model_type": family, **base.config.to_dict()}, plan)
    model = AutoModelForCausalLM.from_config(type(base.config).from_dict(raw))
    names = list(base.state_dict())
    stack = find_stack(names, len(decoder_layers(base)[1]))
    state = {
        new: tensor.clone()
        for name, tensor in base.state_dict().items()
        for new in stack.renamed(name, plan)
    }
    model.load_state_dict(state)
    return model.eval()
