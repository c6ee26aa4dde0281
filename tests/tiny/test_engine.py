"""The trie engine against separately built models, one forward per request."""

import families
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from surgeon.block import Block
from surgeon.errors import SurgeonError, UnsupportedModel
from surgeon.evals.engine import Engine
from surgeon.evals.layout import Request
from surgeon.layerwise import LayerRunner
from surgeon.models import decoder_layers, plan_view
from surgeon.plan import LayerPlan

DEPTH = families.DEPTH
PLANS = {
    "base": LayerPlan.identity(DEPTH),
    "dup 1:3": LayerPlan.duplicate(DEPTH, Block(1, 3)),
    "dup 2:5": LayerPlan.duplicate(DEPTH, Block(2, 5)),
    "dup 2:5 x3": LayerPlan.duplicate(DEPTH, Block(2, 5), 3),
    "drop 3:5": LayerPlan.identity(DEPTH).drop(Block(3, 5)),
}


def some_requests():
    """Contexts of several lengths, each with choices of one to three tokens."""
    generator = np.random.default_rng(0)
    requests = []
    for length in (3, 7, 7, 12, 20):
        context = tuple(generator.integers(3, 128, length).tolist())
        for size in (1, 1, 2, 3, 3):
            requests.append(Request(context, tuple(generator.integers(3, 128, size).tolist())))
    return requests


def alone(model, request):
    """Log-likelihood and greediness of one request, by the model's own forward."""
    ids = torch.tensor([request.context + request.continuation])
    with torch.inference_mode():
        logits = model(input_ids=ids).logits[0, len(request.context) - 1 : -1].double()
    logp = logits.log_softmax(-1)
    target = torch.tensor(request.continuation)
    own = logp.gather(1, target[:, None]).sum().item()
    return own, bool((logits.argmax(-1) == target).all())


def counted(model, tally):
    def hook(module, args, kwargs):
        hidden = args[0] if args else kwargs["hidden_states"]
        tally.append(hidden.shape[0] * hidden.shape[1])

    # The attention of a layer runs only when the layer does, not when it is recorded.
    return [
        layer.self_attn.register_forward_pre_hook(hook, with_kwargs=True)
        for layer in decoder_layers(model)[1]
    ]


def test_costs_are_what_hooks_count_and_within_the_promise():
    generator = np.random.default_rng(1)
    context = [tuple(generator.integers(3, 128, 40).tolist()) for _ in range(6)]
    requests = [
        Request(c, tuple(generator.integers(3, 128, 3).tolist())) for c in context for _ in range(5)
    ]
    block = Block(2, 4)
    blocks = [block, *block.neighbours(DEPTH), Block(3, 6)]
    plans = {b: LayerPlan.duplicate(DEPTH, b) for b in blocks} | {None: PLANS["base"]}
    for pack in (False, True):
        engine = Engine(families.base_model("llama"), pack=pack, batch_size=4)
        tally = []
        hooks = counted(engine.model, tally)
        engine.score(requests, plans)
        for each in hooks:
            each.remove()
        cost = engine.cost
        assert cost.layer_forwards == len(tally) < 0.62 * cost.layer_forwards_alone
        assert cost.layer_tokens == sum(tally)  # all rows are equally long: no padding
        if pack:
            assert cost.layer_tokens < 0.20 * cost.layer_tokens_alone
        assert cost.most_states <= 3


def test_the_model_is_left_as_it_was():
    model = families.base_model("gemma2")
    layers = decoder_layers(model)[1]
    before = [id(layer) for layer in layers]
    with torch.inference_mode():
        want = model(torch.arange(3, 9)[None]).logits
        engine = Engine(model)
        engine.score(some_requests(), PLANS)
        with pytest.raises(SurgeonError, match="no tokens"):
            engine.score([Request((), (3,))], PLANS)
        assert torch.equal(model(torch.arange(3, 9)[None]).logits, want)
    assert [id(layer) for layer in decoder_layers(model)[1]] == before


def test_long_inputs_are_cut_on_the_left():
    model = families.base_model("llama")
    ids = tuple(np.random.default_rng(2).integers(3, 128, 30).tolist())
    request = Request(ids[:27], ids[27:])
    for pack in (False, True):
        got = Engine(model, pack=pack, max_length=16).score([request, Request(ids[:27], ids[1:3])],
                                                           {"base": PLANS["base"]})  # fmt: skip
        cut = Request(ids[13:27], ids[27:])
        assert got["base"].loglikelihood[0] == pytest.approx(alone(model, cut)[0], abs=1e-4)
    with pytest.raises(SurgeonError, match="continuation of 20 tokens does not fit"):
        Engine(model, max_length=16).score([Request(ids[:2], ids[2:22])], PLANS)


def test_repeated_requests_are_run_once_and_answered_each_time():
    engine = Engine(families.base_model("llama"))
    one = some_requests()[:2]
    answers = engine.score([one[0], one[1], one[0]], PLANS)["base"].loglikelihood
    assert answers[0] == answers[2] != answers[1]
    assert engine.cost.batches == 1


def test_scores_that_are_not_finite_are_an_error():
    model = families.separate_model("llama", PLANS["base"])
    with torch.no_grad():
        model.model.layers[2].mlp.up_proj.weight[0, 0] = float("nan")
    plans = {"drop": LayerPlan.identity(DEPTH).drop(Block(2, 3)), "base": PLANS["base"]}
    with pytest.raises(SurgeonError, match="of 25 log-likelihoods of `base` are not finite"):
        Engine(model).score(some_requests(), plans)


def test_a_model_that_cannot_be_taken_apart_runs_plan_by_plan(monkeypatch):
    def refuse(self):
        raise UnsupportedModel("layers run one by one do not give its logits")

    requests = some_requests()
    want = Engine(families.base_model("qwen3")).score(requests, PLANS)
    monkeypatch.setattr(LayerRunner, "require_same_logits", refuse)
    engine = Engine(families.base_model("qwen3"))
    got = engine.score(requests, PLANS)
    assert "no layers are shared" in engine.notes[0]
    assert engine.cost.layer_forwards == engine.cost.layer_forwards_alone
    for name in PLANS:
        np.testing.assert_allclose(
            got[name].loglikelihood, want[name].loglikelihood, atol=1e-4, rtol=1e-5
        )


def test_a_model_whose_layers_are_fetched_as_needed(tmp_path):
    """Layers on disk, moved in by hooks: what `--device-map auto` does beyond the memory."""
    model = families.separate_model("llama", PLANS["base"])
    model.save_pretrained(tmp_path / "model")
    places = dict.fromkeys(
        ("model.embed_tokens", "model.norm", "model.rotary_emb", "lm_head"), "cpu"
    )
    places |= {f"model.layers.{at}": "cpu" if at < 3 else "disk" for at in range(DEPTH)}
    spread = AutoModelForCausalLM.from_pretrained(
        tmp_path / "model", device_map=places, offload_folder=tmp_path / "disk"
    ).eval()
    requests = some_requests()
    want = Engine(model).score(requests, PLANS)
    engine = Engine(spread)
    assert engine.runner is not None and engine.notes == []
    got = engine.score(requests, PLANS)
    for name in PLANS:
        assert (got[name].loglikelihood == want[name].loglikelihood).all()
    with pytest.raises(UnsupportedModel, match="spread over several devices"):
        plan_view(spread, PLANS["dup 1:3"])


def test_half_precision_takes_its_softmax_in_float32():
    model = families.separate_model("llama", PLANS["base"]).to(torch.bfloat16)
    found = Engine(model, pack=False).score(some_requests(), {"base": PLANS["base"]})["base"]
    logp = found.loglikelihood
    as_half = torch.tensor(logp).to(torch.bfloat16).double().numpy()
    assert (logp != as_half).mean() > 0.9  # bfloat16 log-probabilities would be on its grid


@pytest.mark.parametrize("family", families.FAMILIES)
def test_engine_equals_separate_models(family):
    requests = some_requests()
    model = families.base_model(family)
    engine = Engine(model, pack=False, batch_size=8)
    assert engine.runner is not None, engine.notes
    answers = engine.score(requests, PLANS)
    packed_engine = Engine(model, pack=True)
    packed = packed_engine.score(requests, PLANS)
    for name, plan in PLANS.items():
        twin = families.separate_model(family, plan)
        want = [alone(twin, request) for request in requests]
        values = np.array([value for value, _ in want])
        np.testing.assert_allclose(answers[name].loglikelihood, values, atol=1e-5, rtol=1e-5)
        np.testing.assert_allclose(packed[name].loglikelihood, values, atol=1e-4, rtol=1e-5)
        greedy = [best for _, best in want]
        assert answers[name].greedy.tolist() == greedy == packed[name].greedy.tolist()
