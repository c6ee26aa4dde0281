"""Second passes and first-order sensitivities against plain autograd on the whole model."""

import numpy as np
import probe_models
import probe_twin
import pytest
import torch

from surgeon.block import Block
from surgeon.checkpoint.store import Checkpoint
from surgeon.probing.jvp import sensitivities
from surgeon.probing.passes import SecondPass, linear_cka
from surgeon.probing.plans import run_candidates
from surgeon.probing.subject import open_model

IDS = probe_models.ids((6, 1, 5, 4))
BLOCKS = [Block(1, 3), Block(2, 3), Block(3, 6)]


@pytest.fixture(scope="module", params=["llama", "gemma2", "gpt2"])
def pair(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    probe_models.save_model(folder, request.param)
    return open_model(Checkpoint.open(folder), IDS, "cpu", "float32"), probe_twin.load(folder)


def layer_runner(model, ids):
    """Hidden states before every layer, and a function that runs layers i..j-1 on others."""
    _, _, stack = probe_twin.stack_of(model)
    calls, states = [], []

    def before(module, args, kwargs):
        rest = {k: v for k, v in kwargs.items() if k != "hidden_states"}
        states.append(args[0] if args else kwargs["hidden_states"])
        calls.append((args[1:], rest))

    handles = [layer.register_forward_pre_hook(before, with_kwargs=True) for layer in stack]
    model(input_ids=torch.tensor([ids]), use_cache=False)
    for handle in handles:
        handle.remove()

    def run(hidden, i, j):
        for layer, (args, kwargs) in list(zip(stack, calls, strict=True))[i:j]:
            hidden = layer(hidden, *args, **kwargs)
            hidden = hidden[0] if isinstance(hidden, tuple) else hidden
        return hidden

    return states, run


@torch.no_grad()
def test_second_pass_matches_running_the_block_again(pair):
    subject, model = pair
    watch = SecondPass()
    run_candidates(subject.layers, subject.batches, BLOCKS, watch=watch, to_the_end=False)
    values = watch.stats(6).values
    for block in BLOCKS:
        ratios, sizes = [], []
        for ids in IDS:
            states, run = layer_runner(model, ids)
            x = states[block.start]
            y = run(x, block.start, block.stop)
            z = run(y, block.start, block.stop)
            ratios += ((z - y).norm(dim=-1) / (y - x).norm(dim=-1))[0].tolist()
            sizes += ((y - x).norm(dim=-1) / x.norm(dim=-1))[0].tolist()
        assert values["contraction"][block] == pytest.approx(np.mean(ratios), rel=1e-4)
        assert values["activity"][block] == pytest.approx(np.mean(sizes), rel=1e-4)
        assert 0 < values["compatibility"][block] <= 1


def test_linear_cka_by_its_definition():
    torch.manual_seed(0)
    x, y = torch.randn(20, 7), torch.randn(20, 9)
    a, b = x - x.mean(0), y - y.mean(0)
    expected = (b.T @ a).norm() ** 2 / ((a.T @ a).norm() * (b.T @ b).norm())
    assert linear_cka(x, y) == pytest.approx(float(expected), rel=1e-5)
    turn, _ = torch.linalg.qr(torch.randn(7, 7))
    assert linear_cka(x, 3 * x @ turn) == pytest.approx(1.0, rel=1e-5)


@pytest.mark.slow
def test_sensitivities_match_exact_derivatives(pair):
    subject, model = pair
    got = sensitivities(subject.layers, subject.runner, subject.batches, BLOCKS, probes=300)
    for block in BLOCKS:
        norms, effects = [], []
        for ids in IDS:
            states, run = layer_runner(model, ids)
            x = states[block.start].detach()

            def mean_out(shift, x=x, run=run, block=block):
                return run(x + shift, block.start, block.stop)[0].mean(0)

            jacobian = torch.autograd.functional.jacobian(mean_out, torch.zeros(x.shape[-1]))
            norms.append(float(jacobian.norm()))
            if len(ids) > 1:
                effects.append(exact_effect(model, ids, block))
        assert got.values["jacobian"][block] == pytest.approx(np.mean(norms), rel=0.06)
        assert got.values["taylor"][block] == pytest.approx(np.mean(effects), rel=1e-3)


def exact_effect(model, ids, block):
    """|<dL/dY, Y - X>| by a full backward pass."""
    _, _, stack = probe_twin.stack_of(model)
    kept = {}

    def after(name):
        def hook(module, args, output):
            state = output[0] if isinstance(output, tuple) else output
            state.retain_grad()
            kept[name] = state

        return hook

    handles = [stack[block.start - 1].register_forward_hook(after("x"))]
    handles.append(stack[block.stop - 1].register_forward_hook(after("y")))
    logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits
    logits[0, -2].log_softmax(-1)[ids[-1]].backward()
    for handle in handles:
        handle.remove()
    effect = (kept["y"].grad * (kept["y"] - kept["x"])).sum().abs()
    model.zero_grad()
    return float(effect)
