"""Tiny random models of every family, saved as folders, with a tokenizer of numbered words."""

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

FAMILIES: dict[str, dict] = {
    "llama": LLAMA,
    "qwen2": LLAMA,
    "gpt2": GPT2,
    "gpt_neox": LLAMA,
}


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
