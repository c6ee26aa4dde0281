"""`verify` finds what was done to a checkpoint after it was written."""

import hashlib
import json
import shutil

import pytest
import torch
from safetensors import safe_open
from surgery_families import config_of
from test_surgery_matrix import distance, reference
from transformers import AutoModelForCausalLM, Gemma3Config, Gemma3ForConditionalGeneration

from surgeon.block import Block
from surgeon.checkpoint.manifest import MANIFEST_NAME, read_manifest
from surgeon.checkpoint.rewrite import duplicate
from surgeon.checkpoint.store import Checkpoint
from surgeon.errors import SurgeonError
from surgeon.plan import LayerPlan
from surgeon.verification.checks import verify
from surgeon.verification.result import Verification
from surgeon.verification.structure import check_structure

PLAN = LayerPlan.duplicate(8, Block(2, 5))
SINGLE = "model.safetensors"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A gemma2 (layers alternate) and its result."""
    folder = tmp_path_factory.mktemp("verify")
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config_of("gemma2"))
    model.save_pretrained(folder / "base")
    duplicate(Checkpoint.open(folder / "base"), PLAN, folder / "out", verifier=check_structure)
    return folder


def broken(made, tmp_path, harm):
    out = tmp_path / "out"
    shutil.copytree(made / "out", out)
    harm(out)
    found = verify(out, base=made / "base", logits=True, strict=False)
    assert Verification.from_dict(found.to_dict()) == found
    return {check.name: check.state for check in found.checks}


def test_an_unharmed_result_passes_everything(made):
    found = verify(made / "out", base=made / "base", logits=True)
    assert found.passed and {check.state for check in found.checks} == {"passed"}
    assert [c.name for c in found.checks] == [
        "files", "digests", "tensors", "structure", "keys", "logits",
    ]  # fmt: skip


def test_without_a_base_what_needs_one_is_not_measured(made):
    found = {check.name: check.state for check in verify(made / "out").checks}
    assert found["structure"] == "not measured"
    assert found["tensors"] == found["digests"] == found["keys"] == "passed"


def test_a_flipped_bit(made, tmp_path):
    def harm(out):
        with (out / SINGLE).open("r+b") as file:
            file.seek(-3, 2)
            byte = file.read(1)
            file.seek(-3, 2)
            file.write(bytes([byte[0] ^ 64]))

    found = broken(made, tmp_path, harm)
    assert found["digests"] == found["tensors"] == "failed"


def to_first_schema(out):
    """The manifest as it was when digests were sha256 without a name."""
    manifest = json.loads((out / MANIFEST_NAME).read_text())
    manifest["schema"] = "surgeon.manifest/1"
    manifest["files"] = [
        {
            "name": file["name"],
            "size": file["size"],
            "sha256": hashlib.sha256((out / file["name"]).read_bytes()).hexdigest(),
        }
        for file in manifest["files"]
    ]
    with safe_open(out.parent / "base" / SINGLE, "pt") as file:
        manifest["tensors"] = {
            name: hashlib.sha256(file.get_tensor(name).numpy().tobytes()).hexdigest()
            for name in file.keys()  # noqa: SIM118
        }
    (out / MANIFEST_NAME).write_text(json.dumps(manifest))


def test_a_manifest_of_the_first_schema(made, tmp_path):
    shutil.copytree(made, tmp_path / "made")
    out = tmp_path / "made" / "out"
    to_first_schema(out)
    found = {check.name: check.state for check in verify(out).checks}
    assert found["digests"] == found["tensors"] == "passed"
    manifest = read_manifest(out)
    assert manifest.files[0].digest.startswith("sha256:")
    assert manifest.to_dict()["schema"] == "surgeon.manifest/2"
    with (out / SINGLE).open("r+b") as file:
        file.seek(-3, 2)
        file.write(b"???")
    found = {check.name: check.state for check in verify(out, strict=False).checks}
    assert found["digests"] == found["tensors"] == "failed"


def test_a_digest_nobody_knows_is_an_error(made, tmp_path):
    def harm(out):
        text = (out / MANIFEST_NAME).read_text()
        (out / MANIFEST_NAME).write_text(text.replace("blake3:", "crc1:"))

    shutil.copytree(made / "out", tmp_path / "out")
    harm(tmp_path / "out")
    with pytest.raises(SurgeonError, match=r"digests by `crc1` cannot be checked"):
        verify(tmp_path / "out")


def test_swapped_layers(made, tmp_path):
    def harm(out):
        data = (out / SINGLE).read_bytes()
        data = data.replace(b"layers.1.mlp", b"layers.X.mlp")
        data = data.replace(b"layers.6.mlp", b"layers.1.mlp")
        (out / SINGLE).write_bytes(data.replace(b"layers.X.mlp", b"layers.6.mlp"))

    found = broken(made, tmp_path, harm)
    assert found["files"] == found["structure"] == "passed"
    assert found["tensors"] == found["logits"] == "failed"


def test_a_config_that_leaves_the_kinds_to_the_class(made, tmp_path):
    def harm(out):
        config = json.loads((out / "config.json").read_text())
        del config["layer_types"]
        (out / "config.json").write_text(json.dumps(config))

    found = broken(made, tmp_path, harm)
    assert found["keys"] == "passed"  # the loader says nothing
    assert found["structure"] == found["logits"] == found["digests"] == "failed"


def test_a_stray_weight_file(made, tmp_path):
    found = broken(made, tmp_path, lambda out: shutil.copy(out / SINGLE, out / "x.safetensors"))
    assert found["digests"] == "failed"


def test_without_a_manifest(made, tmp_path):
    found = broken(made, tmp_path, lambda out: (out / MANIFEST_NAME).unlink())
    assert found["digests"] == found["structure"] == "not measured"
    assert found["keys"] == "passed"


def test_a_failure_is_an_error_unless_asked_otherwise(made, tmp_path):
    shutil.copytree(made / "out", tmp_path / "out")
    (tmp_path / "out" / "config.json").write_text(
        (tmp_path / "out" / "config.json").read_text() + " "
    )
    with pytest.raises(SurgeonError, match=r"failed verification: digests: `config\.json`"):
        verify(tmp_path / "out")


def test_images_and_text_share_a_config(tmp_path):
    """A nested text_config: the text path computes the plan."""
    text = config_of("gemma3_text").to_dict()
    vision = {
        "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "image_size": 28,
        "num_attention_heads": 2, "patch_size": 14,
    }  # fmt: skip
    torch.manual_seed(0)
    config = Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    Gemma3ForConditionalGeneration(config).save_pretrained(tmp_path / "base")
    base = Checkpoint.open(tmp_path / "base")
    duplicate(base, PLAN, tmp_path / "out", verifier=check_structure)
    tokens = torch.randint(3, 60, (2, 14))
    source, result = (
        Gemma3ForConditionalGeneration.from_pretrained(tmp_path / name, dtype="float32").eval()
        for name in ("base", "out")
    )
    assert distance(reference(source, PLAN), result, tokens, True) <= 1e-5
    assert verify(tmp_path / "out", base=tmp_path / "base").passed
