"""Every family we support, in every style of config, at four blocks each.

Each result is either refused for the stated reason, or its logits are those of the source's
own modules run in plan order, with and without a cache. The reference shares nothing with the
code under test: it copies modules in memory, permutes the lists of the configuration object,
and never looks at config.json.
"""

import copy
import json
import os
from collections import Counter

import pytest
import torch
from safetensors.torch import load_file, save_file
from surgery_families import BLOCKS, CASES, DEPTH, FULL, KINDS, SLIDING, Case, config_of
from torch import nn
from transformers import AutoModelForCausalLM

from surgeon.block import Block
from surgeon.checkpoint.rewrite import duplicate
from surgeon.checkpoint.store import Checkpoint
from surgeon.errors import SurgeonError, UnsupportedModel
from surgeon.plan import LayerPlan
from surgeon.verification.checks import verify
from surgeon.verification.loading import logits_by_steps
from surgeon.verification.structure import check_structure

TOLERANCE = 1e-5
POSITION = ("layer_idx", "layer_id", "layer_number", "idx")
OUTCOMES: Counter = Counter()


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch):
    """Thousands of small files: their durability is not what is tested here."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def build(case):
    torch.manual_seed(0)
    config = config_of(case.model_type, **copy.deepcopy(case.config))
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            # Biases and norms start equal in all layers, which would hide a mix-up.
            if value.is_floating_point() and value.ndim == 1 and "inv_freq" not in name:
                value.add_(0.05 * torch.rand(value.shape))
    return model


def state(path, stated):
    """Rewrite config.json in another style."""
    file = path / "config.json"
    raw = json.loads(file.read_text())
    for key, value in stated.items():
        raw.pop(key, None)
        if value is not None:
            raw[key] = value
    file.write_text(json.dumps(raw))


def load(path):
    model, report = AutoModelForCausalLM.from_pretrained(
        path, attn_implementation="eager", output_loading_info=True
    )
    assert not report["missing_keys"] and not report["mismatched_keys"]
    return model.eval(), report["unexpected_keys"]


def decoder(model):
    """Parent module, name and list of the outermost stack of DEPTH layers."""
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == DEPTH:
            parent, _, leaf = name.rpartition(".")
            return model.get_submodule(parent), leaf, module
    raise AssertionError("no stack")


def _constant(value):
    return property(lambda self: value)


def permute_config(config, plan):
    """Lists of a configuration object in plan order, those of properties included."""
    for name, value in list(vars(config).items()):
        if isinstance(value, list | tuple) and len(value) == DEPTH:
            vars(config)[name] = plan.apply(value)
    lists = {}
    for base in type(config).__mro__:
        for name, member in vars(base).items():
            if isinstance(member, property) and not name.startswith("_"):
                value = getattr(config, name, None)
                if isinstance(value, list | tuple) and len(value) == DEPTH:
                    lists[name] = _constant(plan.apply(value))
    for name in ("num_hidden_layers", "num_layers", "n_layer", "n_layers"):
        if name in vars(config):
            vars(config)[name] = len(plan)
    if lists:
        config.__class__ = type(type(config).__name__, (type(config),), lists)


def reference(model, plan):
    """The source's own modules in plan order, each with the cache slot of its position."""
    model = copy.deepcopy(model)
    parent, leaf, layers = decoder(model)
    config = model.config.get_text_config()
    shared = {id(config): config}
    slots = config.num_hidden_layers // DEPTH  # cache slots of one layer
    stack = nn.ModuleList(copy.deepcopy(layers[at], dict(shared)) for at in plan.layers)
    for at, layer in enumerate(stack):
        for module in layer.modules():
            for name in POSITION:
                if isinstance(getattr(module, name, None), int):
                    slot = getattr(module, name) % slots if slots > 1 else 0
                    setattr(module, name, at * slots + slot)
    setattr(parent, leaf, stack)
    permute_config(config, plan)
    return model


def distance(one, other, tokens, cached):
    with torch.no_grad():
        found = [(one(tokens, use_cache=False).logits, other(tokens, use_cache=False).logits)]
        if cached:
            found.append((logits_by_steps(one, tokens), logits_by_steps(other, tokens)))
    return max(float((a - b).abs().max()) for a, b in found)


@pytest.mark.parametrize("name", CASES)
def test_result_computes_the_plan_or_is_refused(name, tmp_path):
    case = CASES[name]
    source = build(case)
    source.save_pretrained(tmp_path / "source", max_shard_size="100KB")
    state(tmp_path / "source", case.stated)
    loaded, unexpected = load(tmp_path / "source")
    torch.manual_seed(1)
    tokens = torch.randint(3, 60, (2, 14))
    assert distance(source, loaded, tokens, False) <= TOLERANCE, "the style means another model"
    for text in BLOCKS:
        plan = LayerPlan.duplicate(DEPTH, Block.parse(text))
        out = tmp_path / text.replace(":", "-")
        try:
            duplicate(Checkpoint.open(tmp_path / "source"), plan, out, verifier=check_structure)
        except UnsupportedModel as error:
            OUTCOMES["refused"] += 1
            assert text in case.refused, f"{text} was refused: {error}"
            assert case.refused[text] in str(error)
            assert not out.exists()
            continue
        assert text not in case.refused, f"{text} should have been refused"
        result, more = load(out)
        wanted = reference(loaded, plan)
        difference = distance(wanted, result, tokens, case.cached)
        OUTCOMES[
            "exact" if difference == 0 else "close" if difference <= TOLERANCE else "wrong"
        ] += 1
        assert difference <= TOLERANCE, f"{text}: logits differ by {difference}"
        assert bool(more) == bool(unexpected)
        with torch.no_grad():
            effect = float((loaded(tokens).logits - result(tokens).logits).abs().max())
        assert effect > 100 * TOLERANCE, f"{text}: the plan changes nothing, so nothing was tested"


def test_summary():
    """At least 100 configurations, and not one result that is wrong without a word."""
    assert len(CASES) >= 100
    print(f"\n{len(CASES)} configurations, {len(BLOCKS)} blocks each: {dict(OUTCOMES)}")
    assert OUTCOMES["wrong"] == 0


def test_a_pattern_in_letters(tmp_path):
    """EXAONE-4's `LLLG`, which the library cannot read: the result has the list instead."""
    build(Case("exaone4", {KINDS: ([SLIDING] * 3 + [FULL]) * 2})).save_pretrained(
        tmp_path / "source"
    )
    loaded, _ = load(tmp_path / "source")
    state(tmp_path / "source", {KINDS: None, "sliding_window_pattern": "LLLG"})
    torch.manual_seed(1)
    tokens = torch.randint(3, 60, (2, 14))
    for text in BLOCKS:
        plan, out = LayerPlan.duplicate(DEPTH, Block.parse(text)), tmp_path / text[0]
        checkpoint = Checkpoint.open(tmp_path / "source")
        duplicate(checkpoint, plan, out, verifier=check_structure)
        result, unexpected = load(out)
        assert not unexpected
        assert distance(reference(loaded, plan), result, tokens, True) <= TOLERANCE
        found = verify(out, base=tmp_path / "source")
        assert {check.state for check in found.checks} == {"passed"}
        with pytest.raises(SurgeonError, match="cannot use the config"):
            verify(out, base=tmp_path / "source", logits=True)


@pytest.mark.parametrize("model_type", ["deepseek_v3", "glm4_moe"])
def test_prediction_layers_left_behind(model_type, tmp_path):
    """A tail as such checkpoints have it: carried behind the new end, or dropped."""
    head = {"first_k_dense_replace": 3, "num_nextn_predict_layers": 1}
    build(Case(model_type, head)).save_pretrained(tmp_path / "source")
    file = tmp_path / "source" / "model.safetensors"
    tensors = load_file(file)
    last = f"model.layers.{DEPTH - 1}."
    tail = {
        name.replace(last, f"model.layers.{DEPTH}."): value.clone()
        for name, value in tensors.items()
        if last in name
    }
    tail[f"model.layers.{DEPTH}.eh_proj.weight"] = torch.ones(32, 64)
    save_file(tensors | tail, file, {"format": "pt"})
    checkpoint = Checkpoint.open(tmp_path / "source")
    assert checkpoint.stack.extra == 1
    plan = LayerPlan.duplicate(DEPTH, Block(4, 6))
    loaded, _ = load(tmp_path / "source")
    tokens = torch.randint(3, 60, (2, 14))
    for drop in (False, True):
        out = tmp_path / f"out-{drop}"
        duplicate(checkpoint, plan, out, verifier=check_structure, drop_mtp=drop)
        result, unexpected = load(out)
        moved = {key for key in unexpected if key.startswith(f"model.layers.{len(plan)}.")}
        assert bool(moved) is not drop and moved == set(unexpected)
        assert distance(reference(loaded, plan), result, tokens, True) <= TOLERANCE
        found = verify(out, base=tmp_path / "source")
        assert {check.state for check in found.checks} == {"passed"}


def test_the_matrix_would_see_a_silent_error(tmp_path):
    """A config with only its count edited loads without a word and is told apart."""
    case = CASES["gemma2, no list"]
    build(case).save_pretrained(tmp_path / "source")
    state(tmp_path / "source", case.stated)
    plan = LayerPlan.duplicate(DEPTH, Block(2, 5))
    checkpoint = Checkpoint.open(tmp_path / "source")
    duplicate(checkpoint, plan, tmp_path / "out", verifier=check_structure)
    state(tmp_path / "out", {"layer_types": None})
    loaded, _ = load(tmp_path / "source")
    result, unexpected = load(tmp_path / "out")
    assert not unexpected
    tokens = torch.randint(3, 60, (2, 14))
    assert distance(reference(loaded, plan), result, tokens, False) > 1e-3
    raw = json.loads((tmp_path / "out" / "config.json").read_text())
    with pytest.raises(UnsupportedModel, match="differ from the plan"):
        check_structure(checkpoint.config, raw, plan)
