"""Quantised, multimodal and multi-token-prediction checkpoints; cloned ranges."""

import errno
import json
import os

import numpy as np
import pytest
from checkpoints import llama_config, llama_tensors, write_model
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

from surgeon.block import Block
from surgeon.checkpoint import copying, disk, layout
from surgeon.checkpoint.config import rewrite_config
from surgeon.checkpoint.guard import count_parameters
from surgeon.checkpoint.manifest import Edit
from surgeon.checkpoint.quantization import expand_name
from surgeon.checkpoint.rewrite import duplicate
from surgeon.checkpoint.stack import Stack
from surgeon.checkpoint.store import Checkpoint
from surgeon.errors import SurgeonError, UnsupportedModel, UsageError
from surgeon.plan import LayerPlan

PLAN = LayerPlan.duplicate(4, Block(1, 3))  # 0 1 2 1 2 3


def agree(before, after, plan):
    return "structure: not looked at in this test"


def written(folder):
    return {n: v for path in folder.glob("*.safetensors") for n, v in load_file(path).items()}


# Quantised checkpoints: how a linear layer of 8 inputs and 16 outputs is stored, and its size.
def packed(kind, random):
    def ints(shape, dtype):
        return random.integers(0, 100, shape).astype(dtype)

    name = "mlp.up_proj"
    return {
        "gptq": {
            f"{name}.qweight": ints((1, 16), np.int32), f"{name}.qzeros": ints((1, 2), np.int32),
            f"{name}.scales": np.ones((1, 16), np.float16), f"{name}.g_idx": ints((8,), np.int32),
        },
        "awq": {
            f"{name}.qweight": ints((8, 2), np.int32), f"{name}.qzeros": ints((1, 2), np.int32),
            f"{name}.scales": np.ones((1, 16), np.float16),
        },
        "compressed-tensors": {
            f"{name}.weight_packed": ints((16, 1), np.int32),
            f"{name}.weight_scale": np.ones((16, 1), np.float16),
            f"{name}.weight_shape": np.array([16, 8], np.int64),
        },
        "bitsandbytes": {
            f"{name}.weight": ints((64, 1), np.uint8), f"{name}.weight.absmax": ints(2, np.uint8),
            f"{name}.weight.quant_map": np.ones(16, np.float32),
            f"{name}.weight.quant_state.bitsandbytes__nf4": ints(30, np.uint8),
        },
        "mxfp4": {
            f"{name}_blocks": ints((4, 16), np.uint8), f"{name}_scales": ints((4,), np.uint8),
        },
        "bitsandbytes 8 bit": {
            f"{name}.weight": ints((16, 8), np.int8), f"{name}.SCB": np.ones(16, np.float32),
        },
    }[kind]  # fmt: skip


KINDS = ["gptq", "awq", "compressed-tensors", "bitsandbytes", "mxfp4", "bitsandbytes 8 bit"]


@pytest.mark.parametrize("kind", KINDS)
def test_quantised_weights_travel_byte_for_byte(tmp_path, kind):
    random = np.random.default_rng(0)
    tensors = llama_tensors()
    plain = sum(value.size for value in tensors.values())
    for layer in range(4):
        for name, value in packed(kind, random).items():
            tensors[f"model.layers.{layer}.{name}"] = value
    settings = {
        "quant_method": kind,
        "bits": 4,
        "modules_to_not_convert": ["lm_head", "model.layers.2.mlp", "re:model\\.layers\\.3\\..*"],
        "dynamic": {"-:model.layers.1.mlp": {}},
    }
    config = llama_config(quantization_config=settings)
    model = write_model(tmp_path / "model", tensors, config)
    checkpoint = Checkpoint.open(model)
    assert count_parameters(checkpoint).total == plain + 4 * 128
    duplicate(checkpoint, PLAN, tmp_path / "out", verifier=agree)
    found = written(tmp_path / "out")
    for at, layer in enumerate(PLAN.layers):
        for name in packed(kind, random):
            before, after = (
                tensors[f"model.layers.{layer}.{name}"], found[f"model.layers.{at}.{name}"]
            )  # fmt: skip
            assert before.dtype == after.dtype and np.array_equal(before, after)
    after = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    assert after["modules_to_not_convert"] == [
        "lm_head", "model.layers.2.mlp", "model.layers.4.mlp", "re:model\\.layers\\.5\\..*",
    ]  # fmt: skip
    assert after["dynamic"] == {"-:model.layers.1.mlp": {}, "-:model.layers.3.mlp": {}}


def test_quantisation_settings_in_a_file_of_their_own(tmp_path):
    model = write_model(tmp_path / "model")
    (model / "quantize_config.json").write_text('{"dynamic": {"model.layers.3.x": 1}, "bits": 4}')
    duplicate(Checkpoint.open(model), PLAN, tmp_path / "out", verifier=agree)
    found = json.loads((tmp_path / "out" / "quantize_config.json").read_text())
    assert found == {"dynamic": {"model.layers.5.x": 1}, "bits": 4}


@pytest.mark.parametrize(
    "text", ["model.layers.(1|2).mlp", "model.layers.[12].mlp", "layers.1|2", "layers.9.mlp"]
)
def test_unclear_layer_numbers_are_refused(text):
    with pytest.raises(UnsupportedModel, match="quantisation settings"):
        expand_name(text, PLAN, "model.layers.")


@given(st.sampled_from(["lm_head", "re:.*gate.*", "mlp", "players.3", "layers.x"]))
def test_other_names_stay(text):
    assert expand_name(text, PLAN, "model.layers.") == [text]


def test_prediction_layers_move_behind_the_new_end(tmp_path):
    tensors = llama_tensors(5)
    config = llama_config(4, model_type="deepseek_v3", first_k_dense_replace=0) | {
        "num_nextn_predict_layers": 1
    }
    checkpoint = Checkpoint.open(write_model(tmp_path / "model", tensors, config))
    assert (checkpoint.depth, checkpoint.stack.extra) == (4, 1)
    assert count_parameters(checkpoint).prediction == sum(
        value.size for name, value in tensors.items() if "layers.4." in name
    )
    duplicate(checkpoint, PLAN, tmp_path / "out", verifier=agree)
    found = written(tmp_path / "out")
    name = "mlp.down_proj.weight"
    assert np.array_equal(found[f"model.layers.6.{name}"], tensors[f"model.layers.4.{name}"])
    assert not any("layers.7." in key for key in found)


def predicting(tmp_path, style, shards=3):
    """A model with prediction tensors: behind the stack, or under a prefix of their own."""
    if style == "behind the stack":
        tensors, config = llama_tensors(5), llama_config(4, model_type="deepseek_v3")
        config |= {"first_k_dense_replace": 0, "num_nextn_predict_layers": 1}
        return write_model(tmp_path / "model", tensors, config, shards), "model.layers.4."
    tensors = llama_tensors() | {"mtp.layers.0.up.weight": np.ones((8, 8), np.float32)}
    config = llama_config(4, model_type="qwen3_next", mtp_num_hidden_layers=1)
    config |= {"layer_types": ["linear_attention", "full_attention"] * 2}
    return write_model(tmp_path / "model", tensors, config, shards), "mtp."


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("style", ["behind the stack", "own prefix"])
def test_prediction_layers_can_be_left_behind(tmp_path, style, shards):
    model, prefix = predicting(tmp_path, style, shards)
    source, out = Checkpoint.open(model), tmp_path / "out"
    manifest = duplicate(source, PLAN, out, verifier=agree, drop_mtp=True)
    old, new = written(model), written(out)
    gone = {name for name in old if name.startswith(prefix)}
    assert gone and not gone & manifest.tensors.keys()
    kept = {name: value for name, value in old.items() if name not in gone}
    wanted = {
        twin: value
        for name, value in kept.items()
        for twin in Stack("model.layers.", 4).renamed(name, PLAN)
    }
    assert new.keys() == wanted.keys()
    assert all(np.array_equal(new[name], wanted[name]) for name in wanted)
    result = Checkpoint.open(out)  # the index and the config agree with the files
    assert (result.depth, result.stack.extra, count_parameters(result).prediction) == (6, 0, 0)
    key = "num_nextn_predict_layers" if prefix.startswith("model") else "mtp_num_hidden_layers"
    assert result.config[key] == 0
    assert Edit(key=key, before=1, after=0) in manifest.edits
    assert manifest.mtp_dropped and manifest.rebuild.endswith(" --drop-mtp")
    again = duplicate(result, LayerPlan.identity(6), tmp_path / "again", verifier=agree)
    assert again.mtp_dropped and "--drop-mtp" not in again.rebuild
    kept = duplicate(source, PLAN, tmp_path / "kept", verifier=agree)
    assert not kept.mtp_dropped and kept.to_dict()["mtp_dropped"] is False


def test_there_must_be_prediction_layers_to_leave_behind(tmp_path):
    checkpoint = Checkpoint.open(write_model(tmp_path / "model"))
    with pytest.raises(UsageError, match="no multi-token-prediction tensors to drop"):
        duplicate(checkpoint, PLAN, tmp_path / "out", verifier=agree, drop_mtp=True)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_exaone_patterns_in_letters_are_spelled_out():
    full, sliding = "full_attention", "sliding_attention"
    plan = LayerPlan.parse(":4,:", 8)  # the pattern over twelve layers says the same
    config = llama_config(8, model_type="exaone4", sliding_window=4, sliding_window_pattern="LLLG")
    after = rewrite_config(config, plan)
    assert after["layer_types"] == [sliding, sliding, sliding, full] * 3
    assert after["sliding_window_pattern"] == "LLLG"
    shifted = rewrite_config(config, LayerPlan.duplicate(8, Block(1, 3)))
    assert shifted["layer_types"] == [*[sliding] * 5, full, *[sliding] * 3, full]
    without = rewrite_config(config | {"sliding_window": None}, plan)
    assert without["layer_types"] == [full] * 12
    with pytest.raises(UnsupportedModel, match="sliding_window_pattern"):
        rewrite_config(config | {"sliding_window_pattern": "LXG"}, plan)


@pytest.mark.parametrize(
    "prefix", ["language_model.model.layers.", "model.language_model.layers.", "layers.", "h."]
)
def test_prefixes(tmp_path, prefix):
    tensors = llama_tensors(prefix=prefix)
    for layer in range(6):  # an image tower of another depth, and one of the same depth
        tensors[f"visual.blocks.{layer}.weight"] = np.full(3, layer, np.float32)
    for layer in range(4):
        tensors[f"vision_tower.layers.{layer}.weight"] = np.full(3, layer, np.float32)
    config = {
        "model_type": "gemma3",
        "text_config": {"model_type": "gemma3_text", "num_hidden_layers": 4},
        "vision_config": {"num_hidden_layers": 4, "layers": [1, 2, 3, 4]},
    }
    checkpoint = Checkpoint.open(write_model(tmp_path / "model", tensors, config))
    assert checkpoint.stack.prefix == prefix
    assert count_parameters(checkpoint).towers == (6 + 4) * 3
    duplicate(checkpoint, PLAN, tmp_path / "out", verifier=agree)
    after = json.loads((tmp_path / "out" / "config.json").read_text())
    assert after["text_config"]["num_hidden_layers"] == 6
    assert after["vision_config"] == config["vision_config"]
    found = written(tmp_path / "out")
    assert np.array_equal(found["vision_tower.layers.3.weight"], np.full(3, 3, np.float32))


def test_unknown_list_of_the_right_length_is_refused():
    config = llama_config(mystery=[1, 2, 3, 4])
    with pytest.raises(UnsupportedModel, match=r"`mystery` has one entry per layer \(4\)"):
        rewrite_config(config, PLAN)
    rewrite_config(llama_config(eos_token_id=[1, 2, 3, 4]), PLAN)


def test_other_keys_and_their_order_stay():
    config = {"zebra": {"a": [1, 2]}, **llama_config(), "time_step_limit": [0.0, float("inf")]}
    after = rewrite_config(config, PLAN)
    assert list(after) == list(config)
    assert {k: v for k, v in after.items() if config[k] != v} == {"num_hidden_layers": 6}


# Cloning, with a filesystem that can: the ioctl is played by a copy that insists on its rules.
@pytest.fixture
def cloning(monkeypatch):
    cloned = []

    def clone_range(source, start, handle, to, length):
        if start % 4096 or to % 4096 or length % 4096 or not length:
            raise OSError(errno.EINVAL, "not on block boundaries")
        data = os.pread(source, length, start)
        if data:
            os.pwrite(handle, data, to)
        cloned.append(length)

    monkeypatch.setattr(disk, "clone_range", clone_range)
    return cloned


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("plan", [":3,1:", "1:", "0,1,1,2,2,3", ":2,:"])
def test_cloned_ranges_hold_the_same_tensors(tmp_path, cloning, monkeypatch, plan, shards):
    monkeypatch.setattr(layout, "CLONE_WORTH", 8192)
    random = np.random.default_rng(0)
    tensors = {
        f"model.layers.{layer}.{name}.weight": random.random(shape).astype(np.float32)
        for layer in range(4)
        for name, shape in {"norm": (64,), "up": (64, 128), "down": (128, 65)}.items()
    }
    tensors["model.embed_tokens.weight"] = random.random((33, 64)).astype(np.float32)
    model = write_model(tmp_path / "model", tensors, llama_config(4), shards=shards)
    parsed = LayerPlan.parse(plan, 4)
    manifest = duplicate(
        Checkpoint.open(model), parsed, tmp_path / "out", verifier=agree, link="reflink"
    )
    found = written(tmp_path / "out")
    total = sum(value.nbytes for value in found.values())
    for at, layer in enumerate(parsed.layers):
        for name in ("norm", "up", "down"):
            key = f"model.layers.{{}}.{name}.weight"
            assert np.array_equal(found[key.format(at)], tensors[key.format(layer)])
    # A dropped layer moves what follows it off the block boundaries, so it is copied.
    assert sum(cloning) > (0 if plan == "1:" else 0.5 * total)
    assert all(file.digest is None for file in manifest.files if file.name.endswith("tensors"))


def test_reflink_is_refused_where_it_cannot_be_done(tmp_path, monkeypatch):
    def cannot(*arguments):
        raise OSError(errno.EOPNOTSUPP, "cannot")

    monkeypatch.setattr(disk, "clone_range", cannot)
    checkpoint = Checkpoint.open(write_model(tmp_path / "model"))
    with pytest.raises(SurgeonError, match="cannot share blocks"):
        duplicate(checkpoint, PLAN, tmp_path / "out", verifier=agree, link="reflink")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    duplicate(checkpoint, PLAN, tmp_path / "out", verifier=agree, link="auto")


def test_segments_are_copied_exactly(tmp_path):
    source = tmp_path / "source"
    source.write_bytes(bytes(range(256)) * 40)
    handle, target = os.open(source, os.O_RDONLY), disk.create(tmp_path / "target")
    copying.clone_segment(layout.Segment("source", 100, 9000, 108), handle, target, lambda n: None)
    os.close(handle)
    os.close(target)
    assert (tmp_path / "target").read_bytes()[108:] == source.read_bytes()[100:9100]
