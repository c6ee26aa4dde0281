"""Streaming: layouts of checkpoints, what stays in memory, and when it falls back."""

import json
import re
from pathlib import Path

import numpy as np
import probe_models
import probe_twin
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForImageTextToText

import surgeon.probing.subject
from surgeon.checkpoint.store import Checkpoint
from surgeon.errors import SurgeonError, UnsupportedModel
from surgeon.probing.engine import probe
from surgeon.probing.prompts import Prompts
from surgeon.probing.skeleton import Skeleton
from surgeon.probing.subject import open_model
from surgeon.probing.sweep import sweep

IDS = probe_models.ids()
PROMPTS = Prompts.of("test", "made up", probe_models.prompts())


def means_of(folder, dtype="float32", **more):
    subject = open_model(Checkpoint.open(folder), IDS, "cpu", dtype, **more)
    return sweep(subject.layers, subject.batches).means, subject


def assert_twin(folder, **more):
    means, subject = means_of(folder, **more)
    expected = probe_twin.position_means(probe_twin.load(folder), IDS)
    np.testing.assert_allclose(means, expected, rtol=1e-5, atol=1e-5)
    return subject


@pytest.fixture
def llama(tmp_path):
    return probe_models.save_model(tmp_path / "llama", "llama")


def renamed(folder, change):
    """Write the tensors of a folder again under other names."""
    tensors = load_file(folder / "model.safetensors")
    save_file(
        {change(name): tensor for name, tensor in tensors.items() if change(name)},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )


def test_sharded_checkpoint(tmp_path):
    model = probe_models.make_model("llama")
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 3
    assert assert_twin(tmp_path).notes == []


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3"])
def test_base_model_prefix_absent(tmp_path, family):
    probe_models.save_model(tmp_path, family, tie_word_embeddings=True)
    renamed(tmp_path, lambda name: re.sub(r"^(model|transformer)\.", "", name))
    assert assert_twin(tmp_path).notes == []


def test_head_under_an_older_name(tmp_path):
    probe_models.save_model(tmp_path, "gpt_neox", tie_word_embeddings=False)
    names = load_file(tmp_path / "model.safetensors").keys()
    assert "embed_out.weight" in names
    assert assert_twin(tmp_path).notes == []


def test_rows_of_any_budget_give_the_same(llama, monkeypatch):
    whole, _ = means_of(llama)
    monkeypatch.setattr(surgeon.probing.subject, "ROW_TOKENS", 10)
    split, subject = means_of(llama)
    assert len(subject.batches) > 3
    np.testing.assert_allclose(split, whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("family", probe_models.FAMILIES)
def test_bfloat16_agrees_with_one_prompt_at_a_time(tmp_path, family):
    named = ("hidden_size", "n_embd", "d_model")
    wide = {name: 256 for name in named if name in probe_models.FAMILIES[family]}
    if family == "opt":
        wide["word_embed_proj_dim"] = 256
    if family in ("stablelm", "olmoe"):  # their heads are always width / heads wide
        wide["head_dim"] = 64
    model = probe_models.make_model(family, **wide)
    for name, weight in model.named_parameters():
        if weight.ndim >= 2 and "embed" not in name and "wte" not in name:
            weight.data *= 0.35  # the width is 8 times larger
    model.to(torch.bfloat16).save_pretrained(tmp_path)
    subject = open_model(Checkpoint.open(tmp_path), IDS, "cpu", "bfloat16")
    got = sweep(subject.layers, subject.batches).layer_stats()
    model = probe_twin.load(tmp_path, torch.bfloat16)
    for name, row in probe_twin.statistics(probe_twin.position_means(model, IDS)).items():
        scale = np.nanmax(np.abs(row))
        np.testing.assert_allclose(got.row(name), row, rtol=1e-3, atol=1e-3 * scale, err_msg=name)


def test_float32_from_a_bfloat16_checkpoint(tmp_path):
    probe_models.save_model(tmp_path, "gemma2", dtype=torch.bfloat16)
    means, _ = means_of(tmp_path)
    expected = probe_twin.position_means(probe_twin.load(tmp_path, torch.float32), IDS)
    np.testing.assert_allclose(means, expected, rtol=1e-5, atol=1e-5)


def test_one_layer_is_resident_and_only_used_rows_of_the_embedding(llama):
    skeleton = Skeleton(Checkpoint.open(llama), "float32", "cpu")
    skeleton.fill_around(torch.tensor([7, 3, 7, 90]))
    assert skeleton.model.get_input_embeddings().weight.shape == (3, 32)
    layers = skeleton.layers()

    def filled():
        return [
            at
            for at, layer in enumerate(skeleton.stack)
            if not all(p.is_meta for p in layer.parameters())
        ]

    assert filled() == []
    with layers.resident(2):
        assert filled() == [2]
    assert filled() == []
    with pytest.raises(RuntimeError, match="stop"), layers.resident(4):
        raise RuntimeError("stop")
    assert filled() == []


def resident_kb(path):
    """Resident size of a mapped file in this process, from the kernel's own account."""
    total, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match(r"^[0-9a-f]+-[0-9a-f]+ ", line):
            inside = line.rstrip().endswith(str(path))
        elif inside and line.startswith("Rss:"):
            total += int(line.split()[1])
    return total


def test_pages_of_a_layer_are_let_go(tmp_path):
    probe_models.save_model(tmp_path, "llama", hidden_size=256, intermediate_size=1024)
    file = tmp_path / "model.safetensors"
    skeleton = Skeleton(Checkpoint.open(tmp_path), "float32", "cpu")
    layers, largest = skeleton.layers(), 0
    for index in range(layers.depth):
        with layers.resident(index) as layer:
            assert sum(float(p.sum()) for p in layer.parameters()) != 0
            largest = max(largest, resident_kb(file))
    one_layer = file.stat().st_size / 6 / 1024
    assert 0.5 * one_layer < largest < 1.5 * one_layer
    assert resident_kb(file) < 0.3 * one_layer


def test_families_converted_on_load_are_held_whole_and_said_so(tmp_path):
    probe_models.save_model(tmp_path, "mixtral")
    notes = assert_twin(tmp_path).notes
    assert notes == [
        "the whole model is in memory: transformers converts the weights of mixtral on load"
    ]


def test_a_tensor_of_another_shape_is_an_error_with_its_name(llama):
    tensors = load_file(llama / "model.safetensors")
    tensors["model.layers.3.mlp.up_proj.weight"] = torch.zeros(3, 3)
    save_file(tensors, llama / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SurgeonError, match=r"mismatched|layers\.3\.mlp\.up_proj"):
        means_of(llama)


def test_a_missing_layer_tensor_is_an_error(llama):
    renamed(llama, lambda name: name if "layers.2.self_attn.k_proj" not in name else "")
    with pytest.raises(SurgeonError, match=r"missing keys.*layers\.2\.self_attn\.k_proj"):
        means_of(llama)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_broken_weights_name_the_first_layer(llama, value):
    tensors = load_file(llama / "model.safetensors")
    tensors["model.layers.4.mlp.down_proj.weight"][0, 0] = value
    save_file(tensors, llama / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SurgeonError, match="layer 4 gives NaN or infinite activations") as info:
        probe(llama, PROMPTS, scorers=["anomaly"])
    assert info.value.exit_code == 1 and "float32" in info.value.hint


def test_attention_entropy_and_skipped_positions(llama):
    subject = open_model(Checkpoint.open(llama), IDS, "cpu", "float32", attention="eager")
    got = sweep(subject.layers, subject.batches, skip_first=2, entropy=True)
    model = probe_twin.load(llama, attention="eager")
    np.testing.assert_allclose(
        got.means, probe_twin.position_means(model, IDS, skip=2), rtol=1e-5, atol=1e-5
    )
    rows = []
    for ids in IDS:
        seen = model(input_ids=torch.tensor([ids]), output_attentions=True).attentions
        p = torch.stack([a[0] for a in seen]).clamp(min=1e-10)  # (N, heads, T, T)
        rows.append(-(p * p.log()).sum(-1).mean((1, 2)).detach().numpy())
    np.testing.assert_allclose(got.entropy, np.stack(rows, axis=1), rtol=1e-5, atol=1e-7)


VISION = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
TOWERS = {
    "gemma3": {
        "text_config": {**probe_models.FAMILIES["gemma3_text"], "vocab_size": 96},
        "vision_config": {**VISION, "num_hidden_layers": 6, "image_size": 28, "patch_size": 14},
        "mm_tokens_per_image": 4, "image_token_index": 95,
    },
    "mistral3": {
        "text_config": {
            **probe_models.LLAMA, "model_type": "mistral", "vocab_size": 96,
        },
        "vision_config": {
            **VISION, "model_type": "pixtral", "num_hidden_layers": 2, "image_size": 28,
            "patch_size": 14, "head_dim": 8,
        },
        "image_token_index": 95,
    },
    "qwen2_5_vl": {
        "text_config": {
            **probe_models.LLAMA, "vocab_size": 96,
            "rope_parameters": {
                "rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2],
            },
        },
        "vision_config": {
            "depth": 2, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2,
            "out_hidden_size": 32,
        },
        "image_token_id": 95, "video_token_id": 94, "vision_start_token_id": 93,
    },
}  # fmt: skip


@pytest.mark.parametrize("family", TOWERS)
def test_text_towers(tmp_path, family):
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **TOWERS[family])
    model = AutoModelForImageTextToText.from_config(config).eval()
    for weight in model.parameters():
        if weight.ndim >= 2:
            weight.data.normal_(0, 0.12)
    model.save_pretrained(tmp_path)
    subject = open_model(Checkpoint.open(tmp_path), IDS, "cpu", "float32")
    means = sweep(subject.layers, subject.batches).means
    text = model.model.language_model
    for prompt, ids in enumerate(IDS):
        seen = []
        handles = [
            layer.register_forward_hook(lambda m, a, out, seen=seen: seen.append(out))
            for layer in text.layers
        ]
        with torch.no_grad():
            model(input_ids=torch.tensor([ids]), use_cache=False)
        for handle in handles:
            handle.remove()
        expected = [(out[0] if isinstance(out, tuple) else out)[0].mean(0) for out in seen]
        np.testing.assert_allclose(
            means[1:, prompt], torch.stack(expected).numpy(), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("family", ["bert", "roberta", "t5", "bart", "mamba", "rwkv"])
def test_other_kinds_of_models_are_refused_by_name(tmp_path, family):
    config = AutoConfig.for_model(family)
    architecture = {"bert": "BertForMaskedLM", "roberta": "RobertaForMaskedLM"}
    config.architectures = [architecture.get(family, f"{family.title()}ForCausalLM")]
    config.save_pretrained(tmp_path)
    save_file({"layers.0.w": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(UnsupportedModel, match=family) as info:
        probe(tmp_path, PROMPTS)
    assert info.value.exit_code == 3


def test_an_unknown_model_type_is_refused_by_name(llama):
    config = json.loads((llama / "config.json").read_text())
    config["model_type"] = "llamma"
    (llama / "config.json").write_text(json.dumps(config))
    with pytest.raises(SurgeonError, match="llamma"):
        probe(llama, PROMPTS)
