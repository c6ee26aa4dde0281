"""Tiny random models with the architecture and the tokenizer class of a recipe's model."""

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

SHAPE = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 6, "num_attention_heads": 4,
    "max_position_embeddings": 1024, "initializer_range": 0.2,
}  # fmt: skip
GROUPED = {**SHAPE, "num_key_value_heads": 2}

KINDS = {
    "qwen2.5": ("qwen2", {**GROUPED, "tie_word_embeddings": True}, "Qwen2Tokenizer"),
    "qwen3": ("qwen3", {**GROUPED, "head_dim": 8, "tie_word_embeddings": True}, "Qwen2Tokenizer"),
    "tinyllama": ("llama", GROUPED, "LlamaTokenizer"),
    "smollm2": ("llama", {**GROUPED, "tie_word_embeddings": True}, "GPT2Tokenizer"),
    "llama-3.2": ("llama", {**GROUPED, "tie_word_embeddings": True}, "PreTrainedTokenizerFast"),
    "gemma-3": (
        "gemma3_text",
        {**GROUPED, "head_dim": 8, "sliding_window": 64, "query_pre_attn_scalar": 8},
        "GemmaTokenizer",
    ),
    "olmo-2": ("olmo2", SHAPE, "GPT2Tokenizer"),
    "pythia": ("gpt_neox", {**SHAPE, "rotary_pct": 0.25}, "GPTNeoXTokenizer"),
}
"""Beginning of a recipe's name -> model type, config, tokenizer class."""


def tokenizer_of(kind):
    """A tokenizer of that class whose vocabulary is the bytes and a few specials."""
    specials = ["<unk>", "<s>", "</s>", "<bos>", "<eos>", "<pad>", "<mask>", "<|endoftext|>",
                "<|padding|>"]  # fmt: skip
    if kind in ("LlamaTokenizer", "GemmaTokenizer"):
        letters = [chr(code) for code in range(33, 127)]
        parts = [*specials, *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *letters]
    else:
        parts = [*specials, *bytes_to_unicode().values()]
    vocabulary = {part: at for at, part in enumerate(dict.fromkeys(parts))}
    if kind == "PreTrainedTokenizerFast":
        backend = Tokenizer(models.BPE(vocabulary, []))
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        return PreTrainedTokenizerFast(
            tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
        )
    return getattr(transformers, kind)(vocab=vocabulary, merges=[])


def kind_of(name):
    """The kind of the recipe `name`."""
    return next(kind for kind in KINDS if name.startswith(kind))


def save_like(name, folder):
    """A random model such as the one of the recipe `name`."""
    model_type, settings, tokenizer_class = KINDS[kind_of(name)]
    tokenizer = tokenizer_of(tokenizer_class)
    torch.manual_seed(0)
    ids = {
        f"{each}_token_id": getattr(tokenizer, f"{each}_token_id") for each in ("bos", "eos", "pad")
    }
    config = AutoConfig.for_model(model_type, vocab_size=len(tokenizer), **settings, **ids)
    model = AutoModelForCausalLM.from_config(config).eval().to(torch.bfloat16)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
