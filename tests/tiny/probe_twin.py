"""The slow twin of the probe: whole model, one prompt at a time, hooks, no packing.

Shares no code with the engine or with `surgeon.stats`: statistics are written out again
from their definitions.
"""

import numpy as np
import torch
from transformers import AutoModelForCausalLM

RANK_PROMPTS, MIN_RANK_PROMPTS = 50, 5


def load(folder, dtype=torch.float32, attention=None):
    extra = {"attn_implementation": attention} if attention else {}
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, **extra)
    return model.eval()


def stack_of(model):
    depth = model.config.get_text_config(decoder=True).num_hidden_layers
    stacks = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.ModuleList) and len(module) == depth
    ]
    name, stack = stacks[0]
    return model.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2], stack


@torch.no_grad()
def position_means(model, rows, skip=0):
    """(N + 1, P, D) float64 means of the hidden states, by hooks on a plain forward."""
    _, _, stack = stack_of(model)
    per_prompt = []
    for ids in rows:
        seen = []

        def before(module, args, kwargs, seen=seen):
            seen.append(args[0] if args else kwargs["hidden_states"])

        def after(module, args, output, seen=seen):
            seen.append(output[0] if isinstance(output, tuple) else output)

        handles = [stack[0].register_forward_pre_hook(before, with_kwargs=True)]
        handles += [layer.register_forward_hook(after) for layer in stack]
        model(input_ids=torch.tensor([ids]), use_cache=False)
        for handle in handles:
            handle.remove()
        states = [state[0].double() for state in seen]
        drop = skip if len(ids) > skip else 0
        per_prompt.append(torch.stack([state[drop:].mean(0) for state in states]).numpy())
    return np.stack(per_prompt, axis=1)


def statistics(means):
    """Statistic name -> list of N numbers, from the definitions in the docstring."""
    depth, prompts = len(means) - 1, means.shape[1]
    out = {}

    def cos(a, b):
        return float(a @ b / (np.sqrt(a @ a) * np.sqrt(b @ b)))

    def size(a):
        return float(np.sqrt(a @ a))

    def over(layer, f):
        pairs = zip(means[layer], means[layer + 1], strict=True)
        return float(np.mean([f(x, y) for x, y in pairs]))

    out["representation_change"] = [over(i, lambda x, y: size(y - x)) for i in range(depth)]
    out["self_similarity"] = [over(i, cos) for i in range(depth)]
    out["norm_growth"] = [over(i, lambda x, y: size(y) / size(x)) for i in range(depth)]
    out["cross_example_variance"] = [
        float(np.mean([np.var(means[i + 1][:, d]) for d in range(means.shape[2])]))
        for i in range(depth)
    ]
    ranks = []
    for i in range(depth):
        delta = (means[i + 1] - means[i])[:RANK_PROMPTS]
        values = np.sqrt(np.clip(np.linalg.eigvalsh(delta @ delta.T), 0, None))
        share = values / values.sum()
        share = share[share > 1e-10]
        ranks.append(float(np.exp(-sum(s * np.log(s) for s in share))))
    out["representation_rank"] = ranks if prompts >= MIN_RANK_PROMPTS else [float("nan")] * depth
    nan = [float("nan")]
    out["forward_similarity"] = [over(i + 1, cos) for i in range(depth - 1)] + nan
    out["forward_similarity_first"] = [
        cos(means[i + 1][0], means[i + 2][0]) for i in range(depth - 1)
    ] + nan
    return out


@torch.no_grad()
def predictions(model, prompts, block=None):
    """(P, V) float64 next-token log-probabilities, with `block` run twice if given.

    The stack is rebuilt as a plain list of the same layer objects; no cache, no views.
    """
    owner, leaf, stack = stack_of(model)
    config = model.config.get_text_config(decoder=True)
    depth, types = len(stack), getattr(config, "layer_types", None)
    order = list(range(depth))
    if block is not None:
        order = [*range(block.stop), *range(block.start, depth)]
    setattr(owner, leaf, torch.nn.ModuleList([stack[i] for i in order]))
    config.num_hidden_layers = len(order)
    if types:
        config.layer_types = [types[i] for i in order]
    try:
        rows = []
        for ids in prompts:
            logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
            rows.append(logits.double().log_softmax(-1))
        return torch.stack(rows).numpy()
    finally:
        setattr(owner, leaf, stack)
        config.num_hidden_layers = depth
        if types:
            config.layer_types = types
