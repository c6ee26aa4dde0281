"""What transformers makes of a written checkpoint: missing keys, and logits."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging as transformers_logging

from surgeon.checkpoint.store import Checkpoint
from surgeon.errors import SurgeonError
from surgeon.models import load_model, plan_view
from surgeon.plan import LayerPlan

TOLERANCE = 1e-5  # of logits; kernels may order sums differently at another depth
_TOKENS = (2, 14)  # batch, length


def check_keys(checkpoint: Checkpoint, base: Checkpoint | None, plan: LayerPlan | None) -> str:
    """Load on the meta device: no key may be missing or unused that was not so in the base.

    Raises:
        SurgeonError: the loader's report has entries the base's report does not explain.
    """
    report = _report(checkpoint.path)
    allowed: dict[str, set[str]] = {}
    if base is not None and plan is not None and any(report.values()):
        for kind, keys in _report(base.path).items():
            allowed[kind] = {new for key in keys for new in base.stack.renamed(key, plan)}
    for kind, keys in report.items():
        left = sorted(keys - allowed.get(kind, set()))
        if left:
            raise SurgeonError(f"{len(left)} {kind.replace('_', ' ')}, first `{left[0]}`")
    return "transformers finds every key it wants and uses every key there is"


def _report(path: Path) -> dict[str, set[str]]:
    """The loader's report: kind to keys."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    automatic: Any = AutoModelForCausalLM
    try:
        _, report = automatic.from_pretrained(
            path,
            device_map="meta",
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, ArithmeticError) as error:
        raise SurgeonError(f"transformers could not load `{path}`: {error}") from error
    kinds = ("missing_keys", "unexpected_keys", "mismatched_keys")
    return {kind: {_key(item) for item in report.get(kind, ())} for kind in kinds}


def _key(item: Any) -> str:
    """A key; mismatched ones come with their two shapes."""
    return str(item[0] if isinstance(item, tuple) else item)


def check_logits(checkpoint: Checkpoint, base: Checkpoint, plan: LayerPlan) -> str:
    """The loaded result computes what the plan computes in memory, with and without cache.

    Raises:
        SurgeonError: logits differ by more than `TOLERANCE`.
    """
    source = load_model(base.path)
    random = torch.Generator().manual_seed(0)
    size = int(source.config.get_text_config().vocab_size)
    tokens = torch.randint(0, size, _TOKENS, generator=random)
    with torch.no_grad():
        view = plan_view(source, plan)
        wanted = view(tokens, use_cache=False).logits
        # Copied logits only from here on: the source's memory is given back before loading.
        stepped = logits_by_steps(view, tokens)
        del view, source
        result = load_model(checkpoint.path)
        pairs = [
            (wanted, result(tokens, use_cache=False).logits),
            (stepped, logits_by_steps(result, tokens)),
        ]
    worst = max(float((a - b).abs().max()) for a, b in pairs)
    if not worst <= TOLERANCE:
        raise SurgeonError(f"logits differ by up to {worst:.2g} from the plan run in memory")
    return f"logits equal those of the plan run in memory (largest difference {worst:.1g})"


def logits_by_steps(model: PreTrainedModel, tokens: torch.Tensor) -> torch.Tensor:
    """Logits with a cache: all tokens but four at once, then one by one.

    Args:
        model: a causal language model.
        tokens: (B, T) with T above 4.

    Returns:
        (B, 5, V): of the last token of the first part and of each single token.
    """
    cut = tokens.shape[1] - 4
    out = model(tokens[:, :cut], use_cache=True)
    found = [out.logits[:, -1:]]
    for at in range(cut, tokens.shape[1]):
        out = model(tokens[:, at : at + 1], past_key_values=out.past_key_values, use_cache=True)
        found.append(out.logits)
    return torch.cat(found, dim=1)  # (B, 5, V)
