"""Malformed and hostile checkpoints: a clear refusal, no traceback, no hang, no big allocation."""

import json
import os
import struct
import tracemalloc

import numpy as np
import pytest
from checkpoints import llama_config, llama_tensors, tree, write_model

from surgeon.block import Block
from surgeon.checkpoint.rewrite import duplicate
from surgeon.checkpoint.store import Checkpoint
from surgeon.errors import SurgeonError
from surgeon.plan import LayerPlan

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
F32 = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


def raw_file(header, payload=b"\0" * 4, length=None):
    """A file from header bytes, or from an object; `length` is what it claims."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + payload


def weights(data):
    """Replace the weight file of a single-file model."""

    def change(model):
        (model / SINGLE).write_bytes(data)

    return change


def entry(**more):
    return weights(raw_file({"a": F32 | more}))


def configured(**more):
    def change(model):
        config = llama_config() | more
        (model / "config.json").write_text(json.dumps(config))

    return change


def config_text(text):
    def change(model):
        (model / "config.json").write_bytes(text if isinstance(text, bytes) else text.encode())

    return change


def indexed(edit):
    """Change the index of a model of three shards."""

    def change(model):
        (model / SINGLE).unlink()
        write_model(model, shards=3)
        body = json.loads((model / INDEX).read_text())
        body = edit(body, model) or body
        (model / INDEX).write_text(body if isinstance(body, str) else json.dumps(body))

    return change


def place(name):
    """Let the index send one tensor to a file of this name."""

    def edit(body, model):
        body["weight_map"]["model.norm.weight"] = name

    return indexed(edit)


def tensors(**changes):
    """Rewrite the model with tensors added (array) or removed (None)."""

    def change(model):
        found = llama_tensors() | {k.replace("__", "."): v for k, v in changes.items()}
        write_model(model, {k: v for k, v in found.items() if v is not None})

    return change


def _duplicate_key(body, model):
    text = json.dumps(body)
    return text.replace('"weight_map": {', '"weight_map": {"model.norm.weight": "x.safetensors", ')


def _swap(body, model):
    names = list(body["weight_map"])
    body["weight_map"][names[0]] = next(
        f for f in body["weight_map"].values() if f != body["weight_map"][names[0]]
    )


def _twice(body, model):
    first, second, *_ = sorted(model.glob("model-*.safetensors"))
    second.write_bytes(first.read_bytes())


def _case(body, model):
    first = sorted(model.glob("model-*.safetensors"))[0]
    (model / first.name.upper().replace("SAFETENSORS", "safetensors")).write_bytes(
        first.read_bytes()
    )
    body["weight_map"]["model.norm.weight"] = first.name.upper().replace(
        "SAFETENSORS", "safetensors"
    )


def _missing(body, model):
    sorted(model.glob("model-*.safetensors"))[0].unlink()


def _drop(body, model):
    body["weight_map"].pop("model.norm.weight")


def _add(body, model):
    body["weight_map"]["model.extra.weight"] = next(iter(body["weight_map"].values()))


def _fifo(model):
    (model / SINGLE).unlink()
    os.mkfifo(model / SINGLE)


def _folder(model):
    (model / SINGLE).unlink()
    (model / SINGLE).mkdir()


def _dangling(model):
    (model / SINGLE).unlink()
    (model / SINGLE).symlink_to("nowhere")


def _loop(model):
    (model / SINGLE).unlink()
    (model / SINGLE).symlink_to(SINGLE)


def _device(model):
    (model / SINGLE).unlink()
    (model / SINGLE).symlink_to("/dev/zero")


def _config_device(model):
    (model / "config.json").unlink()
    (model / "config.json").symlink_to("/dev/zero")


def _stale_single(model):
    data = (model / SINGLE).read_bytes()
    (model / SINGLE).unlink()
    write_model(model, shards=2)
    (model / SINGLE).write_bytes(data)


def _pickle(model):
    (model / SINGLE).rename(model / "pytorch_model.bin")


def _renamed(model):
    (model / SINGLE).rename(model / "other.safetensors")


def _truncated(model):
    data = (model / SINGLE).read_bytes()
    (model / SINGLE).write_bytes(data[:-5])


def _appended(model):
    with (model / SINGLE).open("ab") as file:
        file.write(b"MZ")


DEEP = "[" * 100_000 + "]" * 100_000
BIG = 2**62

CASES = {
    # the container
    "empty file": weights(b""),
    "seven bytes": weights(b"\0" * 7),
    "length 0": weights(struct.pack("<Q", 0)),
    "length over the file": weights(raw_file({}, length=10_000)),
    "length over the cap": weights(raw_file({}, length=100_000_001)),
    "length 2^62": weights(raw_file({}, length=BIG)),
    "length 2^64-1": weights(raw_file({}, length=2**64 - 1)),
    "truncated payload": _truncated,
    "trailing bytes": _appended,
    "a named pipe": _fifo,
    "a folder": _folder,
    "a dangling link": _dangling,
    "a link to itself": _loop,
    "a device": _device,
    # the header as text
    "header does not start with a brace": weights(raw_file(b" {}")),
    "header is a list": weights(raw_file(b"[]")),
    "header is not JSON": weights(raw_file(b"{nonsense}")),
    "header is not UTF-8": weights(raw_file(b'{"\xff\xfe": 1}')),
    "header with a lone surrogate": weights(raw_file(b'{"\\ud800": {}}')),
    "header nested deeply": weights(raw_file(b'{"a":' + DEEP.encode() + b"}")),
    "header with NaN": weights(raw_file(b'{"a": NaN}')),
    "header with a number of 10,000 digits": weights(raw_file(b'{"a": ' + b"9" * 10_000 + b"}")),
    "header with two equal keys": weights(
        raw_file(b'{"a": %s, "a": %s}' % ((json.dumps(F32).encode(),) * 2))
    ),
    "header with two equal inner keys": weights(
        raw_file(b'{"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}')
    ),
    "header without tensors": weights(raw_file({}, b"")),
    # entries
    "entry is a number": weights(raw_file({"a": 1})),
    "entry without dtype": weights(raw_file({"a": {"shape": [1], "data_offsets": [0, 4]}})),
    "entry with an extra key": entry(extra=1),
    "unknown dtype": entry(dtype="F33"),
    "dtype is a list": entry(dtype=["F32"]),
    "shape is a number": entry(shape=1),
    "shape with a string": entry(shape=["1"]),
    "shape with a bool": entry(shape=[True]),
    "shape with a float": entry(shape=[1.0]),
    "negative shape": entry(shape=[-1]),
    "shape overflows": entry(shape=[BIG, BIG]),
    "shape of rank 1000": entry(shape=[1] * 1000),
    "offsets reversed": entry(data_offsets=[4, 0]),
    "offsets negative": entry(data_offsets=[-4, 0]),
    "three offsets": entry(data_offsets=[0, 4, 8]),
    "offsets are strings": entry(data_offsets=["0", "4"]),
    "offset is a bool": entry(shape=[], dtype="U8", data_offsets=[False, True]),
    "offset beyond the file": entry(shape=[2], data_offsets=[0, 8]),
    "offset 2^62": entry(data_offsets=[BIG, BIG + 4]),
    "size does not match": entry(shape=[2]),
    "half a byte": entry(dtype="F4", shape=[7]),
    "overlap": weights(raw_file({"a": F32, "b": F32})),
    "partial overlap": weights(
        raw_file({"a": F32, "b": F32 | {"data_offsets": [2, 6]}}, b"\0" * 6)
    ),
    "hole": weights(raw_file({"a": F32, "b": F32 | {"data_offsets": [8, 12]}}, b"\0" * 12)),
    "hole at the start": weights(raw_file({"a": F32 | {"data_offsets": [4, 8]}}, b"\0" * 8)),
    "empty name": weights(raw_file({"": F32})),
    "name of 2,000 characters": weights(raw_file({"a" * 2000: F32})),
    "name with NUL": weights(raw_file({"a\0b": F32})),
    "metadata is a list": weights(raw_file({"__metadata__": [], "a": F32})),
    "metadata with a number": weights(raw_file({"__metadata__": {"format": 1}, "a": F32})),
    # the index
    "index leads out": place("../../etc/evil.safetensors"),
    "index with an absolute path": place("/etc/evil.safetensors"),
    "index with a backslash": place("..\\evil.safetensors"),
    "index with a drive": place("C:evil.safetensors"),
    "index with NUL": place("a\0.safetensors"),
    "index with a newline": place("a\n.safetensors"),
    "index with a hidden file": place(".hidden.safetensors"),
    "index with a device name": place("CON.safetensors"),
    "index with a pickle": place("pytorch_model.bin"),
    "index with a number": place(7),
    "index with an empty name": place(""),
    "index with a look-alike letter": place("m\u043edel.safetensors"),
    "index with a name of 5,000 characters": place("a" * 5000 + ".safetensors"),
    "index names a missing file": place("model-00009-of-00009.safetensors"),
    "index sends a tensor to another shard": indexed(_swap),
    "index has a key twice": indexed(_duplicate_key),
    "index lacks a tensor": indexed(_drop),
    "index has a tensor too many": indexed(_add),
    "index lists a shard that is gone": indexed(_missing),
    "two shards hold one tensor": indexed(_twice),
    "two names differ in case": indexed(_case),
    "index without a map": indexed(lambda body, model: {"metadata": {}}),
    "index with an empty map": indexed(lambda body, model: {"weight_map": {}}),
    "index is a list": indexed(lambda body, model: "[]"),
    "index is not JSON": indexed(lambda body, model: "weights"),
    "index nested deeply": indexed(lambda body, model: '{"weight_map":' + DEEP + "}"),
    "single file beside an index": _stale_single,
    # the config
    "config is missing": lambda model: (model / "config.json").unlink(),
    "config is empty": config_text(""),
    "config is a list": config_text("[]"),
    "config is a device": _config_device,
    "config is not UTF-8": config_text(b"\xff\xfe{}"),
    "config nested deeply": config_text('{"a":' + DEEP + "}"),
    "config nested 100 deep": config_text('{"a":' + "[" * 100 + "]" * 100 + "}"),
    "config with NaN": config_text('{"model_type": "llama", "num_hidden_layers": NaN}'),
    "config with a key twice": config_text('{"model_type": "llama", "model_type": "gpt2"}'),
    "config with 1e999 layers": config_text('{"model_type": "llama", "num_hidden_layers": 1e999}'),
    "config without a type": configured(model_type=None),
    "config with a list as type": configured(model_type=["llama"]),
    "layer count is text": configured(num_hidden_layers="4"),
    "layer count is a bool": configured(num_hidden_layers=True),
    "layer count is negative": configured(num_hidden_layers=-4),
    "layer count is zero": configured(num_hidden_layers=0),
    "layer count is 10^9": configured(num_hidden_layers=10**9),
    "layer count disagrees": configured(num_hidden_layers=5),
    "weights elsewhere": configured(transformers_weights="../other.safetensors"),
    "unknown type with its own code": configured(
        model_type="mine", auto_map={"AutoModelForCausalLM": "evil.Model"}
    ),
    "encoder-decoder": configured(is_encoder_decoder=True),
    # the stack
    "no layer numbers": weights(raw_file({"a": F32})),
    "a layer is missing": tensors(**{
        f"model__layers__2__{n}": None
        for n in (
            "input_layernorm__weight", "self_attn__q_proj__weight", "mlp__down_proj__weight"
        )
    }),
    "two stacks": tensors(**{
        f"other__layers__{at}__weight": np.ones(2, np.float32) for at in range(4)
    }),
    "per-layer tensors outside the stack": tensors(**{
        f"model__queries__{at}__weight": np.ones(2, np.float32) for at in range(5)
    }),
    "pickle only": _pickle,
    "weights under another name": _renamed,
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_refused_clearly(tmp_path, name):
    model = write_model(tmp_path / "model")
    CASES[name](model)
    plan = LayerPlan.duplicate(4, Block(1, 3))
    names = sorted(path.name for path in tmp_path.iterdir())
    tracemalloc.start()
    with pytest.raises(SurgeonError) as caught:
        duplicate(Checkpoint.open(model), plan, tmp_path / "out", verifier=lambda *a: "")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert caught.value.exit_code in (1, 3)
    text = str(caught.value)
    assert 10 < len(text) < 600 and "\n" not in text and "\0" not in text
    assert peak < 64e6
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_the_corpus_is_large_enough():
    assert len(CASES) >= 60


def test_an_unharmed_model_passes(tmp_path):
    """The refusals above are not for another reason."""
    model = write_model(tmp_path / "model", shards=3)
    plan = LayerPlan.duplicate(4, Block(1, 3))
    duplicate(Checkpoint.open(model), plan, tmp_path / "out", verifier=lambda *a: "")
    assert "config.json" in tree(tmp_path / "out")
