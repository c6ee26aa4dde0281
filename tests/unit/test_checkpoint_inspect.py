import numpy as np
import pytest
from checkpoints import llama_config, llama_tensors, write_model

from surgeon.block import Block
from surgeon.checkpoint.inspect import Inspection, inspect
from surgeon.checkpoint.store import Checkpoint
from surgeon.plan import LayerPlan


def opened(tmp_path, depth=12, **config):
    """A folder of llama-shaped tensors under any config."""
    model = write_model(tmp_path / "m", llama_tensors(depth), llama_config(depth, **config))
    return Checkpoint.open(model)


def states(checkpoint, block):
    plan = LayerPlan.duplicate(checkpoint.depth, Block.parse(block))
    return {item.target: item.state for item in inspect(checkpoint, plan).deployment}


def test_inspection_of_a_plain_model(tmp_path):
    checkpoint = opened(tmp_path, eos_token_id=2)
    found = inspect(checkpoint)
    assert (found.depth, found.stack, found.family_verdict) == (12, "model.layers.", "sound")
    assert found.parameters.total == sum(t.size for t in llama_tensors(12).values())
    assert found.dtypes == {"F32": found.nbytes}
    assert found.deployment is None and found.guard.startswith("allowed")
    assert Inspection.from_dict(found.to_dict()) == found


def test_plain_models_are_safe_everywhere(tmp_path):
    assert set(states(opened(tmp_path), "2:5").values()) == {"safe"}


@pytest.mark.parametrize(
    ("model_type", "period"), [("gemma2", 2), ("gemma3_text", 6), ("cohere2", 4), ("smollm3", 4)]
)
def test_llama_cpp_assumes_a_period(tmp_path, model_type, period):
    checkpoint = opened(tmp_path, model_type=model_type)
    assert states(checkpoint, f"2:{2 + period}")["llama.cpp"] == "safe"
    broken = states(checkpoint, "2:3")
    assert broken["llama.cpp"] == broken["Ollama"] == "unsafe"
    assert broken["transformers"] == "safe"


def test_layer_counts_that_mean_another_model(tmp_path):
    checkpoint = opened(tmp_path, 42, model_type="gemma2")
    assert states(checkpoint, "10:14")["llama.cpp"] == "unsafe"  # 46 layers
    assert states(checkpoint, "10:12")["llama.cpp"] == "safe"


def test_lite_deepseek(tmp_path):
    checkpoint = opened(tmp_path, 27, model_type="deepseek_v2", first_k_dense_replace=1)
    assert states(checkpoint, "10:12")["llama.cpp"] == "unsafe"


def test_linear_attention_needs_metadata(tmp_path):
    checkpoint = opened(tmp_path, model_type="qwen3_next")
    assert states(checkpoint, "4:8")["llama.cpp"] == "safe"
    assert states(checkpoint, "4:6")["llama.cpp"] == "needs metadata"


def test_vllm_and_window_thresholds(tmp_path):
    checkpoint = opened(tmp_path, model_type="qwen2", use_sliding_window=True, max_window_layers=6)
    assert states(checkpoint, "2:4")["vLLM"] == "unsafe"


def test_a_refused_plan_is_unsafe_everywhere(tmp_path):
    checkpoint = opened(tmp_path, model_type="deepseek_v3", first_k_dense_replace=3)
    assert set(states(checkpoint, "2:5").values()) == {"unsafe"}


def test_experts_are_counted_by_what_one_token_uses(tmp_path):
    tensors = llama_tensors()
    for layer in range(4):
        for expert in range(8):
            name = f"model.layers.{layer}.mlp.experts.{expert}.up_proj.weight"
            tensors[name] = np.ones((4, 8), np.float32)
    config = llama_config(model_type="mixtral", num_local_experts=8, num_experts_per_tok=2)
    found = inspect(Checkpoint.open(write_model(tmp_path / "m", tensors, config))).parameters
    assert found.total - found.active == 4 * 6 * 32
