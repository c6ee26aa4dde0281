"""The bytes of a rewritten checkpoint against the reference library."""

import errno
import fcntl
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from blake3 import blake3
from checkpoints import llama_config, llama_tensors, tree, write_model
from safetensors import safe_open
from safetensors.numpy import load_file

from surgeon.block import Block
from surgeon.checkpoint import disk, layout
from surgeon.checkpoint.header import read_header
from surgeon.checkpoint.manifest import read_manifest
from surgeon.checkpoint.rewrite import duplicate
from surgeon.checkpoint.store import Checkpoint
from surgeon.errors import SurgeonError
from surgeon.plan import LayerPlan

PLANS = {
    "block": LayerPlan.duplicate(4, Block(1, 3)),
    "start": LayerPlan.duplicate(4, Block(0, 2)),
    "end": LayerPlan.duplicate(4, Block(2, 4)),
    "three times": LayerPlan.duplicate(4, Block(1, 2), times=3),
    "interleaved": LayerPlan.parse("0,1,1,2,2,3", 4),
    "dropped": LayerPlan.parse("0,2:", 4),
    "reversed": LayerPlan.parse("3,2,1,0", 4),
    "same": LayerPlan.identity(4),
}


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch):
    """Thousands of small files: their durability is not what is tested here."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def agree(before, after, plan):
    return "structure: not looked at in this test"


def all_tensors(folder):
    found = {}
    for path in folder.glob("*.safetensors"):
        part = load_file(path)
        assert not found.keys() & part.keys()
        found |= part
    return found


def expected(tensors, plan, prefix="model.layers."):
    """The slow twin: rename in a dictionary of arrays."""
    found = {name: value for name, value in tensors.items() if not name.startswith(prefix)}
    for at, layer in enumerate(plan.layers):
        for name, value in tensors.items():
            head = f"{prefix}{layer}."
            if name.startswith(head):
                found[f"{prefix}{at}.{name.removeprefix(head)}"] = value
    return found


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("link", ["auto", "copy", "hard"])
@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_tensors_are_the_source_tensors_in_plan_order(tmp_path, plan, link, shards):
    tensors = llama_tensors()
    model = write_model(tmp_path / "model", tensors, shards=shards)
    before = tree(model)
    out = tmp_path / "out"
    duplicate(Checkpoint.open(model), plan, out, verifier=agree, link=link)
    found, wanted = all_tensors(out), expected(tensors, plan)
    assert found.keys() == wanted.keys()
    assert all(np.array_equal(found[name], wanted[name]) for name in wanted)
    assert json.loads((out / "config.json").read_text()) == llama_config(len(plan))
    assert tree(model) == before
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def is_direct(handle):
    return bool(fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_DIRECT)


def odd_tensors():
    """Sizes that fit no block: many small tensors, an empty one, large ones."""
    random = np.random.default_rng(0)
    tensors = llama_tensors()
    for layer in range(4):
        name = f"model.layers.{layer}"
        tensors[f"{name}.odd"] = random.integers(0, 255, 10_001, dtype=np.uint8)
        tensors[f"{name}.none"] = np.zeros((0, 4), np.float32)
        tensors[f"{name}.large"] = random.random((100, 77)).astype(np.float32)
    return tensors


@pytest.mark.parametrize("buffer", [4096, 8192, 1 << 20])
@pytest.mark.parametrize("shards", [1, 3])
def test_blocks_of_any_number_hold_the_same_bytes(tmp_path, monkeypatch, buffer, shards):
    monkeypatch.setattr(disk, "BUFFER", buffer)
    tensors, plan = odd_tensors(), PLANS["block"]
    model = write_model(tmp_path / "model", tensors, shards=shards)
    manifest = duplicate(Checkpoint.open(model), plan, tmp_path / "out", verifier=agree)
    found, wanted = all_tensors(tmp_path / "out"), expected(tensors, plan)
    assert all(np.array_equal(found[name], wanted[name]) for name in wanted)
    assert manifest.tensors == {
        name: f"blake3:{blake3(value.tobytes()).hexdigest()}" for name, value in tensors.items()
    }
    for file in manifest.files:
        data = (tmp_path / "out" / file.name).read_bytes()
        assert (file.size, file.digest) == (len(data), f"blake3:{blake3(data).hexdigest()}")


def refuse_direct_flag(monkeypatch):
    call, asked = fcntl.fcntl, []

    def refuse(handle, command, argument=0):
        if command == fcntl.F_SETFL and argument & os.O_DIRECT:
            asked.append(handle)
            raise OSError(errno.EINVAL, "no direct writes here")
        return call(handle, command, argument)

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    return asked


def refuse_direct_write(monkeypatch):
    call, asked = os.pwrite, []

    def refuse(handle, data, at):
        asked.append(handle)
        if is_direct(handle):
            raise OSError(errno.EINVAL, "larger blocks, please")
        return call(handle, data, at)

    monkeypatch.setattr(os, "pwrite", refuse)
    return asked


def refuse_read_flag(monkeypatch):
    call, asked = os.preadv, []

    def refuse(handle, buffers, at, flags=0):
        if flags:
            asked.append(handle)
            raise OSError(errno.EOPNOTSUPP, "an older kernel")
        return call(handle, buffers, at)

    monkeypatch.setattr(os, "preadv", refuse)
    return asked


@pytest.mark.parametrize("refuse", [refuse_direct_flag, refuse_direct_write, refuse_read_flag])
def test_systems_that_cannot_pass_the_cache_by(tmp_path, monkeypatch, refuse):
    tensors, plan = odd_tensors(), PLANS["block"]
    model = write_model(tmp_path / "model", tensors)
    asked = refuse(monkeypatch)
    duplicate(Checkpoint.open(model), plan, tmp_path / "out", verifier=agree)
    assert asked
    found, wanted = all_tensors(tmp_path / "out"), expected(tensors, plan)
    assert all(np.array_equal(found[name], wanted[name]) for name in wanted)


def test_other_errors_of_the_disk_are_not_taken_for_that(tmp_path, monkeypatch):
    model = write_model(tmp_path / "model", odd_tensors())
    source = Checkpoint.open(model)

    def refuse(handle, data, at):
        raise OSError(errno.EINVAL if not is_direct(handle) else errno.EIO, "broken")

    monkeypatch.setattr(os, "pwrite", refuse)
    with pytest.raises(SurgeonError, match=r"writing .* failed"):
        duplicate(source, PLANS["block"], tmp_path / "out", verifier=agree)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_source_that_ends_early_is_an_error(tmp_path, monkeypatch):
    source = Checkpoint.open(write_model(tmp_path / "model", odd_tensors()))
    monkeypatch.setattr(disk, "read", lambda source, view, at: 0)
    with pytest.raises(SurgeonError, match="ended early"):
        duplicate(source, PLANS["block"], tmp_path / "out", verifier=agree)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_identity_is_the_same_file(tmp_path):
    model = write_model(tmp_path / "model")
    duplicate(Checkpoint.open(model), PLANS["same"], tmp_path / "out", verifier=agree)
    old, new = (read_header(path / "model.safetensors") for path in (model, tmp_path / "out"))
    assert old.tensors == new.tensors and old.metadata == new.metadata


def test_metadata_travels_and_format_is_there(tmp_path):
    model = write_model(tmp_path / "model", shards=2)
    duplicate(Checkpoint.open(model), PLANS["block"], tmp_path / "out", verifier=agree)
    for path in (tmp_path / "out").glob("*.safetensors"):
        with safe_open(path, "numpy") as file:
            assert file.metadata() == {"format": "pt"}


def test_index_lists_exactly_what_is_there(tmp_path):
    model = write_model(tmp_path / "model", shards=3)
    out = tmp_path / "out"
    duplicate(Checkpoint.open(model), PLANS["block"], out, verifier=agree)
    index = json.loads((out / "model.safetensors.index.json").read_text())
    place = {n: p.name for p in out.glob("*.safetensors") for n in load_file(p)}
    assert index["weight_map"] == place
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in all_tensors(out).values())


def test_odd_sizes_stay_aligned(tmp_path):
    tensors = llama_tensors()
    tensors["model.layers.1.flags"] = np.arange(3, dtype=np.uint8)
    tensors["model.layers.1.wide"] = np.arange(3, dtype=np.float64)
    model = write_model(tmp_path / "model", tensors)
    duplicate(Checkpoint.open(model), PLANS["block"], tmp_path / "out", verifier=agree)
    header = read_header(tmp_path / "out" / "model.safetensors")
    assert all((header.payload + t.start) % t.item_bytes == 0 for t in header.tensors)
    found, wanted = all_tensors(tmp_path / "out"), expected(tensors, PLANS["block"])
    assert all(np.array_equal(found[name], wanted[name]) for name in wanted)


def test_repeated_layers_get_a_file_where_the_shard_would_be_too_large(tmp_path):
    model = write_model(tmp_path / "model")
    checkpoint = Checkpoint.open(model)
    size = (model / "model.safetensors").stat().st_size
    outputs = layout.lay_out(checkpoint, PLANS["block"], limit=size)
    assert [output.name for output in outputs] == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ]


def test_old_payload_stays_one_range(tmp_path):
    checkpoint = Checkpoint.open(write_model(tmp_path / "model"))
    (output,) = layout.lay_out(checkpoint, PLANS["block"])
    header = checkpoint.headers["model.safetensors"]
    assert output.segments[0].length == header.size - header.payload


def test_manifest_says_what_was_done(tmp_path):
    model = write_model(tmp_path / "model", shards=2)
    (model / "tokenizer.json").write_text("{}")
    (model / "pytorch_model.bin").write_bytes(b"pickle")
    (model / "README.md").write_text("about another model")
    out = tmp_path / "out"
    manifest = duplicate(Checkpoint.open(model), PLANS["block"], out, verifier=agree)
    assert read_manifest(out) == manifest
    assert manifest.carried == ["tokenizer.json"]
    assert manifest.left == ["README.md", "pytorch_model.bin"]
    assert [(e.key, e.before, e.after) for e in manifest.edits] == [("num_hidden_layers", 4, 6)]
    assert manifest.rebuild == "surgeon duplicate model out --layers ':3,1:'"
    assert {file.name for file in manifest.files} == {
        path.name for path in out.iterdir() if path.name != "surgeon.json"
    }
    for file in manifest.files:
        data = (out / file.name).read_bytes()
        assert (file.size, file.digest) == (len(data), f"blake3:{blake3(data).hexdigest()}")
    for name, value in llama_tensors().items():
        assert manifest.tensors[name] == f"blake3:{blake3(value.tobytes()).hexdigest()}"


def test_a_result_of_a_result_names_the_root(tmp_path):
    write_model(tmp_path / "a")
    first, second = PLANS["block"], LayerPlan.duplicate(6, Block(4, 6))
    duplicate(Checkpoint.open(tmp_path / "a"), first, tmp_path / "b", verifier=agree)
    manifest = duplicate(Checkpoint.open(tmp_path / "b"), second, tmp_path / "c", verifier=agree)
    assert manifest.root.id == "a" and manifest.source.id == "b"
    assert manifest.root_plan == first.then(second)


def test_file_modes_follow_the_umask(tmp_path):
    model = write_model(tmp_path / "model")
    old = os.umask(0o022)
    try:
        duplicate(Checkpoint.open(model), PLANS["block"], tmp_path / "out", verifier=agree)
    finally:
        os.umask(old)
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "out").iterdir()}
    assert modes == {0o644}


def test_cache_snapshot_with_links(tmp_path):
    blobs = tmp_path / "models--owner--name" / "blobs"
    snapshot = tmp_path / "models--owner--name" / "snapshots" / "abc123"
    real = write_model(tmp_path / "real")
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for path in real.iterdir():
        path.rename(blobs / f"{path.name}-blob")
        (snapshot / path.name).symlink_to(f"../../blobs/{path.name}-blob")
    checkpoint = Checkpoint.open(snapshot)
    manifest = duplicate(checkpoint, PLANS["block"], tmp_path / "out", verifier=agree)
    assert (manifest.source.id, manifest.source.revision) == ("owner/name", "abc123")
    assert not any(path.is_symlink() for path in (tmp_path / "out").iterdir())


def test_changed_input_is_not_published(tmp_path):
    model = write_model(tmp_path / "model")
    checkpoint = Checkpoint.open(model)

    def meddle(before, after, plan):
        os.utime(model / "model.safetensors", ns=(1, 1))
        return "meddled"

    from surgeon.errors import SurgeonError

    with pytest.raises(SurgeonError, match="changed while it was read"):
        duplicate(checkpoint, PLANS["block"], tmp_path / "out", verifier=meddle)
    assert not (tmp_path / "out").exists()


def test_no_torch_is_imported():
    code = (
        "import sys, surgeon.checkpoint.rewrite, surgeon.checkpoint.inspect;"
        "sys.exit(any(n in sys.modules for n in ('torch', 'transformers', 'numpy')))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
