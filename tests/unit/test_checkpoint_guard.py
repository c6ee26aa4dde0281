"""The size guard and other refusals of `Checkpoint.open` and `duplicate`."""

import numpy as np
import pytest
from checkpoints import llama_config, llama_tensors, tree, write_model, write_sparse

from surgeon.block import Block
from surgeon.checkpoint import disk
from surgeon.checkpoint.guard import count_parameters, refuse_large, size_class
from surgeon.checkpoint.rewrite import duplicate
from surgeon.checkpoint.store import Checkpoint
from surgeon.errors import (
    NoSpace,
    OutputExists,
    Refused,
    SurgeonError,
    TooLarge,
    UnsafeCheckpoint,
    UnsupportedModel,
    UsageError,
)
from surgeon.plan import LayerPlan

PLAN = LayerPlan.duplicate(4, Block(1, 3))


def agree(before, after, plan):
    return "structure: not looked at in this test"


def test_7b_class_is_refused_and_nothing_written(tmp_path):
    model = write_sparse(tmp_path / "model", 6_700_000_000)
    before = [path.name for path in sorted(tmp_path.rglob("*"))]
    with pytest.raises(TooLarge, match=r"6\.70e9 parameters.*6\.5e9.*helped up to 3B") as caught:
        duplicate(Checkpoint.open(model), PLAN, tmp_path / "out")
    assert caught.value.exit_code == 3
    assert [path.name for path in sorted(tmp_path.rglob("*"))] == before


@pytest.mark.parametrize(
    ("parameters", "kind", "warns"),
    [
        (2_999_999_999, "measured", 0),
        (3_000_000_000, "unmeasured", 1),
        (6_400_000_000, "unmeasured", 1),
        (6_499_999_999, "unmeasured", 1),
    ],
)
def test_below_7b_passes(tmp_path, parameters, kind, warns):
    checkpoint = Checkpoint.open(write_sparse(tmp_path / "model", parameters))
    assert count_parameters(checkpoint).total == parameters
    assert size_class(parameters) == kind
    assert len(refuse_large(checkpoint)) == warns


def test_threshold_itself_is_refused(tmp_path):
    with pytest.raises(TooLarge):
        refuse_large(Checkpoint.open(write_sparse(tmp_path / "model", 6_500_000_000)))


def test_missing_folder(tmp_path):
    with pytest.raises(SurgeonError, match=r"no model folder at `.*/nowhere`") as caught:
        Checkpoint.open(tmp_path / "nowhere")
    assert caught.value.exit_code == 1


def test_not_a_model(tmp_path):
    with pytest.raises(SurgeonError, match=r"not a model folder: it has no config\.json"):
        Checkpoint.open(tmp_path)


def test_adapter_only(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(UnsupportedModel, match="adapter"):
        Checkpoint.open(tmp_path)


def test_pickle_only(tmp_path):
    model = write_model(tmp_path / "model")
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    with pytest.raises(UnsafeCheckpoint, match="pickled weights only"):
        Checkpoint.open(model)


def test_no_weights(tmp_path):
    model = write_model(tmp_path / "model")
    (model / "model.safetensors").unlink()
    with pytest.raises(SurgeonError, match="no weights"):
        Checkpoint.open(model)


@pytest.mark.parametrize("model_type", ["diffllama", "bert", "t5", "mamba"])
def test_refused_families(tmp_path, model_type):
    model = write_model(tmp_path / "model", config=llama_config(model_type=model_type))
    with pytest.raises(UnsupportedModel, match=f"`{model_type}` is refused"):
        Checkpoint.open(model)


def test_config_and_tensors_disagree(tmp_path):
    model = write_model(tmp_path / "model", config=llama_config(5))
    with pytest.raises(UnsupportedModel, match=r"config says 5 layers.*have 4"):
        Checkpoint.open(model)


def test_missing_layer(tmp_path):
    tensors = {n: t for n, t in llama_tensors().items() if "layers.2." not in n}
    with pytest.raises(UnsupportedModel, match=r"numbered 0\.\.3, but only 3"):
        Checkpoint.open(write_model(tmp_path / "model", tensors))


def test_existing_out(tmp_path):
    checkpoint = Checkpoint.open(write_model(tmp_path / "model"))
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    with pytest.raises(OutputExists, match="exists"):
        duplicate(checkpoint, PLAN, out, verifier=agree)
    with pytest.raises(Refused, match="not a model folder"):
        duplicate(checkpoint, PLAN, out, verifier=agree, force=True)
    assert tree(out) == {"notes.txt": b"mine"}


def test_force_replaces_a_model(tmp_path):
    checkpoint = Checkpoint.open(write_model(tmp_path / "model"))
    out = write_model(tmp_path / "out")
    (out / "stale.json").write_text("{}")
    duplicate(checkpoint, PLAN, out, verifier=agree, force=True)
    assert Checkpoint.open(out).depth == 6
    assert not (out / "stale.json").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"model", "out"}


@pytest.mark.parametrize("where", [".", "inside", ".."])
def test_out_must_not_touch_the_source(tmp_path, where):
    model = write_model(tmp_path / "above" / "model")
    with pytest.raises(Refused, match="source"):
        duplicate(Checkpoint.open(model), PLAN, model / where, verifier=agree, force=True)


def test_disk_too_small(tmp_path, monkeypatch):
    checkpoint = Checkpoint.open(write_model(tmp_path / "model"))
    monkeypatch.setattr(disk, "free_bytes", lambda path: 1000)
    with pytest.raises(NoSpace, match="1,000 free") as caught:
        duplicate(checkpoint, PLAN, tmp_path / "out", verifier=agree)
    assert caught.value.exit_code == 3
    assert {path.name for path in tmp_path.iterdir()} == {"model"}


def test_plan_for_another_depth(tmp_path):
    checkpoint = Checkpoint.open(write_model(tmp_path / "model"))
    with pytest.raises(UsageError, match="plan is for 5 layers, the model has 4"):
        duplicate(checkpoint, LayerPlan.identity(5), tmp_path / "out", verifier=agree)


def test_dry_run_changes_nothing(tmp_path):
    write_model(tmp_path / "model", shards=3)
    before = tree(tmp_path)
    checkpoint = Checkpoint.open(tmp_path / "model")
    manifest = duplicate(checkpoint, PLAN, tmp_path / "out", verifier=agree, dry_run=True)
    assert tree(tmp_path) == before
    assert manifest.plan == PLAN


def test_verifier_refusal_leaves_nothing(tmp_path):
    def disagree(before, after, plan):
        raise UnsupportedModel("the result would differ")

    checkpoint = Checkpoint.open(write_model(tmp_path / "model"))
    with pytest.raises(UnsupportedModel):
        duplicate(checkpoint, PLAN, tmp_path / "out", verifier=disagree)
    assert {path.name for path in tmp_path.iterdir()} == {"model"}


def test_masks_and_heads_are_not_counted_twice(tmp_path):
    tensors = llama_tensors()
    plain = sum(tensor.size for tensor in tensors.values())
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].copy()
    tensors["model.layers.0.attn.bias"] = np.ones((1, 1, 4, 4), np.float32)
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(4, np.float32)
    count = count_parameters(Checkpoint.open(write_model(tmp_path / "model", tensors)))
    assert (count.total, count.tied_head) == (plain, True)
