"""Measured cost of small models against slow and independent twins."""

import json
import os
import signal
import time

import pytest
import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM

from surgeon.block import Block
from surgeon.checkpoint.rewrite import duplicate
from surgeon.checkpoint.store import Checkpoint
from surgeon.cost import measure, measure_cost, meter
from surgeon.cost.__main__ import _Subject, timed_generation, weight_bytes
from surgeon.plan import LayerPlan

pytestmark = pytest.mark.slow


def save(folder, inner=256, positions=512, tied=False):
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "llama", vocab_size=256, hidden_size=128, intermediate_size=inner,
        num_hidden_layers=4, num_attention_heads=4, max_position_embeddings=positions,
        tie_word_embeddings=tied, eos_token_id=0, bos_token_id=1,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A model, and the same with half of its layers twice."""
    folder = tmp_path_factory.mktemp("cost")
    base = save(folder / "base")
    plan = LayerPlan.duplicate(4, Block(1, 3))
    duplicate(Checkpoint.open(base), plan, folder / "longer")
    return base, folder / "longer"


def stored_bytes(folder):
    """Bytes of all stored tensors, counted from the file."""
    with safe_open(folder / "model.safetensors", "pt") as file:
        return sum(file.get_tensor(name).nbytes for name in file.keys())  # noqa: SIM118


def test_base_and_candidate_are_measured(models, monkeypatch):
    started = []
    original = measure.subprocess.Popen

    def popen(*args, **options):
        started.append(original(*args, **options))
        return started[-1]

    monkeypatch.setattr(measure.subprocess, "Popen", popen)
    cost = measure_cost(*models, prompt=64, tokens=8, repeats=3)
    assert cost.missing is None and cost.warm
    assert (cost.prompt, cost.tokens, cost.batch, cost.device) == (64, 8, 1, "cpu")
    assert cost.threads == torch.get_num_threads() and cost.memory == meter.GENERATING
    for model, folder in zip((cost.base, cost.candidate), models, strict=True):
        assert len(model.prefill.values) == len(model.decode.values) == 3
        # Rotary frequencies are the only tensors that no file holds.
        assert 0 <= model.weights - stored_bytes(folder) < 4096
        assert 50e6 < model.idle < model.peak < 3e9
    assert len(started) == 2 and all(child.returncode is not None for child in started)


def test_peak_memory_holds_the_weights(tmp_path):
    """200 MB more of weights are 200 MB more of memory."""
    small, large = save(tmp_path / "small"), save(tmp_path / "large", inner=32_768)
    cost = measure_cost(small, large, prompt=8, tokens=2, repeats=1)
    more = 4 * 3 * (32_768 - 256) * 128 * 4  # layers, matrices, rows, columns, bytes
    assert cost.candidate.weights - cost.base.weights == more
    assert 0.9 * more < cost.candidate.peak - cost.base.peak < 1.2 * more


def test_time_is_split_between_prompt_and_tokens(models):
    """A model that waits 0.1 s in every pass: once for the prompt, once for each later token."""
    subject = _Subject(str(models[0]), "cpu", "float32")
    passes = []

    def wait(module, args, kwargs):
        passes.append(kwargs["input_ids"].shape[1])
        time.sleep(0.3 if len(passes) % 5 == 1 else 0.1)

    subject.model.register_forward_pre_hook(wait, with_kwargs=True)
    subject.turn(16, 5)
    taken = subject.turn(16, 5)
    assert passes == [16, 1, 1, 1, 1] * 2, "the prompt once, then one token at a time"
    assert 0.3 <= taken["prefill"] < 0.38
    assert 0.4 <= taken["decode"] < 0.58


def test_generation_does_not_stop_at_an_end_token(models):
    """Greedy tokens equal those of plain passes without a cache; token 0 ends no turn."""
    subject = _Subject(str(models[0]), "cpu", "float32")
    with torch.no_grad():
        for head in (subject.model.lm_head.weight,):
            head.zero_()  # every logit equal: the first token, 0, is the end token
    assert subject.model.config.eos_token_id == 0
    start, ticks = timed_generation(subject.model, torch.ones(1, 4, dtype=torch.long), 6)
    assert len(ticks) == 6 and sorted([start, *ticks]) == [start, *ticks]


def test_tied_weights_count_once(tmp_path):
    tied, apart = save(tmp_path / "tied", tied=True), save(tmp_path / "apart")
    sizes = [weight_bytes(_Subject(str(path), "cpu", "bfloat16").model) for path in (tied, apart)]
    assert sizes[1] - sizes[0] == 256 * 128 * 2


def test_few_positions_shorten_the_prompt(tmp_path):
    short = save(tmp_path / "short", positions=40)
    cost = measure_cost(short, short, repeats=1)
    assert (cost.prompt, cost.tokens, cost.missing) == (20, 20, None)


def test_a_model_that_does_not_load_is_not_measured(models, tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    config = json.loads((models[0] / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps(config))
    cost = measure_cost(models[0], broken, repeats=1)
    assert cost.base is cost.candidate is cost.decode_ratio is None
    assert "`broken`" in cost.missing and "could not load" in cost.missing


def test_a_process_that_is_killed_is_reported(models, monkeypatch):
    ask = measure._Model.ask

    def kill_first(model, question):
        os.kill(model._child.pid, signal.SIGKILL)
        model._child.wait()
        return ask(model, question)

    monkeypatch.setattr(measure._Model, "ask", kill_first)
    cost = measure_cost(*models, repeats=1)
    assert "ended with code -9" in cost.missing and "memory" in cost.missing
