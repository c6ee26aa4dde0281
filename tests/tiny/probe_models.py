"""Tiny random models of every family, saved as folders, with a tokenizer of numbered words."""

from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

VOCABULARY = 96
WINDOW = 5  # shorter than most test prompts

LLAMA = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 6,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
}  # fmt: skip
GPT2 = {"n_embd": 32, "n_layer": 6, "n_head": 4, "n_positions": 64}
MHA = {**LLAMA, "num_key_value_heads": 4}
SLIDING = {**LLAMA, "sliding_window": WINDOW}
MOE = {**LLAMA, "moe_intermediate_size": 24, "num_experts": 4, "num_experts_per_tok": 2}
MIXED = ["sliding_attention", "full_attention"] * 3

FAMILIES: dict[str, dict[str, Any]] = {
    "llama": LLAMA,
    "mistral": SLIDING,
    "ministral": {**SLIDING, "layer_types": MIXED},
    "ministral3": LLAMA,
    "qwen2": {**SLIDING, "use_sliding_window": True, "layer_types": MIXED},
    "qwen3": {**SLIDING, "use_sliding_window": True, "layer_types": MIXED},
    "qwen2_moe": {**MOE, "shared_expert_intermediate_size": 24},
    "qwen3_moe": MOE,
    "mixtral": {**SLIDING, "num_local_experts": 4, "num_experts_per_tok": 2},
    "gemma": LLAMA,
    "gemma2": {**SLIDING, "layer_types": MIXED, "query_pre_attn_scalar": 8},
    "gemma3_text": {**SLIDING, "layer_types": MIXED, "query_pre_attn_scalar": 8},
    "phi": MHA,
    "phi3": SLIDING,
    "gpt2": GPT2,
    "gpt_neo": {
        "hidden_size": 32, "num_layers": 6, "num_heads": 4, "window_size": WINDOW,
        "attention_types": [[["global", "local"], 3]], "max_position_embeddings": 64,
    },
    "gpt_neox": LLAMA,
    "gptj": {**GPT2, "rotary_dim": 4},
    "opt": {
        "hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 6, "num_attention_heads": 4,
        "word_embed_proj_dim": 32, "max_position_embeddings": 64,
    },
    "bloom": {"hidden_size": 32, "n_layer": 6, "n_head": 4},
    "falcon": {
        "hidden_size": 32, "num_hidden_layers": 6, "num_attention_heads": 4, "alibi": False,
    },
    "mpt": {"d_model": 32, "n_layers": 6, "n_heads": 4, "expansion_ratio": 2, "max_seq_len": 64},
    "stablelm": LLAMA,
    "starcoder2": SLIDING,
    "olmo": LLAMA,
    "olmo2": LLAMA,
    "olmoe": {**MOE, "intermediate_size": 24},
    "cohere": LLAMA,
    "cohere2": {**SLIDING, "layer_types": MIXED},
    "granite": LLAMA,
    "smollm3": LLAMA,
    "glm4": LLAMA,
    "exaone4": {**SLIDING, "layer_types": MIXED},
    "nemotron": LLAMA,
    "apertus": LLAMA,
    "hunyuan_v1_dense": LLAMA,
    "jamba": {
        **MOE, "attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 3,
        "mamba_d_state": 4, "mamba_d_conv": 2, "use_mamba_kernels": False,
    },
    "lfm2": {**LLAMA, "layer_types": ["conv", "full_attention"] * 3},
}  # fmt: skip


def prompts(lengths=(9, 1, 13, 4, 7, 9, 12)):
    """Prompts of these token counts, different words each."""
    return tuple(
        " ".join(f"w{(7 * row + 3 * at * (row + 1)) % (VOCABULARY - 2)}" for at in range(length))
        for row, length in enumerate(lengths)
    )


def ids(lengths=(9, 1, 13, 4, 7, 9, 12)):
    """The same prompts as token ids."""
    return [tokenizer()(text)["input_ids"] for text in prompts(lengths)]


def tokenizer():
    words = {"<eos>": 0, "<unk>": 1} | {f"w{i}": i + 2 for i in range(VOCABULARY - 2)}
    base = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    base.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=base, eos_token="<eos>", unk_token="<unk>")


def make_model(family, seed=0, **changes):
    """A random float32 model whose layers matter: weights are scaled up from the usual 0.02."""
    fields = {"vocab_size": VOCABULARY, "eos_token_id": 0, "bos_token_id": 0, "pad_token_id": 0}
    config = AutoConfig.for_model(family, **{**fields, **FAMILIES[family], **changes})
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim >= 2 and "router" not in name:
                weight.normal_(0, 0.12)
    return model


def save_model(folder, family, dtype=torch.float32, **changes):
    make_model(family, **changes).to(dtype).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder
