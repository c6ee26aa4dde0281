"""Dense decoders: the written checkpoint computes what the plan computes in memory."""

import json
import subprocess
import sys
from contextlib import suppress

import pytest
import torch
from surgery_families import CASES, DEPTH, config_of
from transformers import AutoConfig, AutoModelForCausalLM

from surgeon.block import Block
from surgeon.checkpoint.config import rewrite_config
from surgeon.checkpoint.rewrite import duplicate
from surgeon.checkpoint.store import Checkpoint
from surgeon.errors import UnsupportedModel
from surgeon.models import load_model, plan_view
from surgeon.plan import LayerPlan
from surgeon.verification.structure import check_structure

WIDE = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4,
    "num_key_value_heads": 2, "num_hidden_layers": 6, "max_position_embeddings": 64,
}  # fmt: skip
MODELS = {
    "llama": WIDE,
    "mistral": WIDE,
    "qwen2": WIDE,
    "qwen3": WIDE | {"head_dim": 8},
    "gpt2": {"vocab_size": 64, "n_embd": 32, "n_layer": 6, "n_head": 4, "n_positions": 64},
    "gpt_neox": {k: v for k, v in WIDE.items() if k != "num_key_value_heads"},
}


@pytest.fixture(scope="module", params=MODELS)
def folder(request, tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp(request.param)
    config = AutoConfig.for_model(request.param, **MODELS[request.param])
    AutoModelForCausalLM.from_config(config).save_pretrained(path, max_shard_size="60KB")
    return path


@pytest.mark.parametrize("block", ["0:2", "2:4", "4:6"])
def test_logits_are_those_of_the_plan(folder, tmp_path, block):
    plan = LayerPlan.duplicate(6, Block.parse(block))
    duplicate(Checkpoint.open(folder), plan, tmp_path / "out", verifier=check_structure)
    source, result = load_model(folder), load_model(tmp_path / "out")
    tokens = torch.randint(0, 64, (2, 14))
    with torch.no_grad():
        wanted, found = plan_view(source, plan)(tokens).logits, result(tokens).logits
        assert (wanted - source(tokens).logits).abs().max() > 1e-3  # the plan does something
    assert torch.equal(wanted, found)


def test_the_child_process_agrees(tmp_path):
    torch.manual_seed(0)
    config = AutoConfig.for_model("llama", **WIDE)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "model")
    plan = LayerPlan.duplicate(6, Block(2, 4))
    manifest = duplicate(Checkpoint.open(tmp_path / "model"), plan, tmp_path / "out")
    assert manifest.checks[0].startswith("structure: 8 positions of LlamaForCausalLM")


LIGHT = """
import json, sys
from surgeon.plan import LayerPlan
from surgeon.verification.__main__ import NOT_NEEDED, lighten
lighten()
from surgeon.verification.structure import check_structure
for line in sys.stdin:
    name, before, after, plan = json.loads(line)
    found = check_structure(before, after, LayerPlan.parse(plan, 8))
    print(json.dumps([name, found]))
assert not any(sys.modules[name] for name in NOT_NEEDED)
"""


@pytest.mark.slow
def test_a_process_of_light_imports_says_the_same_of_every_family():
    plan, questions, wanted = LayerPlan.parse(":7,6:", DEPTH), [], {}
    for name, case in CASES.items():
        before = json.loads(json.dumps(config_of(case.model_type, **case.config).to_dict()))
        with suppress(UnsupportedModel):
            after = rewrite_config(before, plan)
            wanted[name] = check_structure(before, after, plan)
            questions.append(json.dumps([name, before, after, str(plan)]))
    assert len(wanted) > 100
    done = subprocess.run(
        [sys.executable, "-c", LIGHT],
        input="\n".join(questions), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert dict(map(json.loads, done.stdout.splitlines())) == wanted


def test_the_verifier_sees_a_wrong_result():
    config = AutoConfig.for_model("gemma2", **WIDE, head_dim=8).to_dict()
    plan = LayerPlan.duplicate(6, Block(1, 2))
    kinds = config.pop("layer_types")
    wrong = config | {"num_hidden_layers": 7}
    with pytest.raises(UnsupportedModel, match="would differ from the plan"):
        check_structure(config, wrong, plan)
    check_structure(config, wrong | {"layer_types": plan.apply(kinds)}, plan)
