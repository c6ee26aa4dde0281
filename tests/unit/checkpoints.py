"""Small checkpoints written byte by byte, without torch, for the tests of `checkpoint/`."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

WIDTH = 8


def llama_tensors(depth=4, dtype=np.float32, prefix="model.layers."):
    """A llama-shaped set of tensors with distinct values."""
    shapes = {"model.embed_tokens.weight": (32, WIDTH), "model.norm.weight": (WIDTH,)}
    for layer in range(depth):
        for name, shape in {
            "input_layernorm.weight": (WIDTH,),
            "self_attn.q_proj.weight": (WIDTH, WIDTH),
            "mlp.down_proj.weight": (WIDTH, 2 * WIDTH),
        }.items():
            shapes[f"{prefix}{layer}.{name}"] = shape
    random = np.random.default_rng(0)
    return {name: random.random(shape).astype(dtype) for name, shape in shapes.items()}


def llama_config(depth=4, **more):
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": 32,
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_attention_heads": 2,
        "num_hidden_layers": depth,
        "tie_word_embeddings": True,
        "rms_norm_eps": 1e-05,
    } | more


def write_model(folder: Path, tensors=None, config=None, shards=1):
    """A model folder with `shards` safetensors files."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = llama_tensors() if tensors is None else tensors
    (folder / "config.json").write_text(json.dumps(config or llama_config(), indent=2))
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return folder
    weight_map = {}
    names = sorted(tensors)
    for shard in range(shards):
        file = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        part = {name: tensors[name] for name in names[shard::shards]}
        save_file(part, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def write_sparse(folder: Path, parameters: int, depth=4):
    """A model whose header describes `parameters` bf16 values; the payload is a hole."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(llama_config(depth)))
    small = 4 * WIDTH
    shapes = {f"model.layers.{layer}.norm.weight": (WIDTH,) for layer in range(depth)}
    shapes["model.embed_tokens.weight"] = (parameters - small,)
    header, at = {}, 0
    for name, shape in shapes.items():
        stop = at + 2 * shape[0]
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, stop]}
        at = stop
    raw = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        file.truncate(8 + len(raw) + at)
    return folder


def tree(folder: Path):
    """Every path below a folder with its bytes, to show that nothing changed."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }
