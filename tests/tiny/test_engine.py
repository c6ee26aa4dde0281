"""The trie engine against separately built models, one forward per request."""

import families
import numpy as np
import pytest
import torch

from surgeon.block import Block
from surgeon.evals.engine import Engine
from surgeon.evals.layout import Request
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
