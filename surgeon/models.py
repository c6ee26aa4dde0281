"""Models in memory: load one, find its decoder layers, run a layer plan with shared weights.

A plan's view is a second model object over the same parameters: module shells are copied,
tensors are not, so a view costs kilobytes. Every position of a view has its own cache slot.
"""

import copy
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from surgeon.checkpoint.config import rewrite_config
from surgeon.errors import SurgeonError, UnsupportedModel, UsageError
from surgeon.plan import LayerPlan

_TOWER = re.compile(r"vision|visual|audio|image|speech|video", re.IGNORECASE)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Choice:
    """An automatic choice and its reason; `str()` is how it is reported."""

    value: str
    reason: str

    def __str__(self) -> str:
        return f"{self.value} ({self.reason})"


def choose_device(asked: str = "auto") -> Choice:
    """CUDA where there is one, else the CPU.

    Raises:
        UsageError: an unknown device, or CUDA asked for where there is none.
    """
    if asked == "auto":
        found = torch.cuda.is_available()
        return Choice("cuda", "a GPU is there") if found else Choice("cpu", "no GPU")
    try:
        device = torch.device(asked)
    except RuntimeError as error:
        raise UsageError(f"unknown device `{asked}`", hint="use cpu, cuda or cuda:N") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"device `{asked}` was asked for, but no CUDA device is available")
    return Choice(asked, "asked for")


def choose_dtype(asked: str, stored: str | None, device: str) -> Choice:
    """The dtype to compute in.

    Args:
        asked: `auto` or a name of `DTYPES`.
        stored: the dtype the checkpoint's config names, or None.
        device: where it will run; float16 on a CPU is slow and overflows.

    Raises:
        UsageError: an unknown dtype.
    """
    if asked != "auto":
        if asked not in DTYPES:
            raise UsageError(f"unknown dtype `{asked}`; known: auto, {', '.join(DTYPES)}")
        return Choice(asked, "asked for")
    if stored == "float16" and device == "cpu":
        return Choice("float32", "float16 overflows on a CPU")
    if stored in DTYPES:
        return Choice(stored, "checkpoint")
    return Choice("float32", "the checkpoint names none")


def stored_dtype(config: dict[str, Any]) -> str | None:
    """The dtype named by a config.json, at the top or in its text tower."""
    text = config.get("text_config") or {}
    for level in (config, text):
        for key in ("dtype", "torch_dtype"):
            if isinstance(level.get(key), str):
                return str(level[key])
    return None


def load_model(
    path: Path,
    *,
    device: str = "cpu",
    dtype: str = "float32",
    attention: str | None = None,
    device_map: str | None = None,
) -> PreTrainedModel:
    """Load a causal LM from a folder, strictly: every key must be there and be used.

    Args:
        path: a folder with config.json and safetensors.
        device: where to put it.
        dtype: a name of `DTYPES`.
        attention: attention implementation, or None for the library's choice.
        device_map: `auto` spreads the layers over all devices there are; `device` is then
            not used.

    Raises:
        SurgeonError: keys are missing, unexpected or mismatched, or loading fails.
    """
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    extra = {"attn_implementation": attention} if attention else {}
    if device_map:
        extra["device_map"] = device_map
    try:
        model, report = auto_class(load_config(path)).from_pretrained(
            path,
            dtype=DTYPES[dtype],
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            **extra,
        )
    except (OSError, ValueError, RuntimeError, TypeError, ArithmeticError) as error:
        raise SurgeonError(f"transformers could not load `{path}`: {error}") from error
    problems = {name: sorted(map(str, keys)) for name, keys in report.items() if keys}
    if problems:
        name, keys = next(iter(problems.items()))
        raise SurgeonError(
            f"`{path}` does not load cleanly: {len(keys)} {name.replace('_', ' ')}, "
            f"first `{keys[0]}`"
        )
    return (model if device_map else model.to(device)).eval()  # type: ignore[no-any-return]


def load_tokenizer(path: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a model folder.

    Raises:
        SurgeonError: there is none, or it cannot be read.
    """
    try:
        return AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SurgeonError(f"no usable tokenizer in `{path}`: {error}") from error


def decoder_layers(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """Path and module list of the decoder stack, for example `model.layers`.

    The stack is the module list, outside image and audio towers, whose length is the
    config's layer count.

    Raises:
        UnsupportedModel: none or several lists have that length.
    """
    depth = model.config.get_text_config(decoder=True).num_hidden_layers
    found = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == depth and not _TOWER.search(name)
    ]
    # A stack of stacks (per-layer lists of equal length) is never the outermost one.
    outer = [x for x in found if not any(x[0].startswith(y[0] + ".") for y in found if y is not x)]
    if len(outer) != 1:
        names = ", ".join(f"`{name}`" for name, _ in outer) or "none"
        raise UnsupportedModel(
            f"{type(model).__name__}: expected one module list of {depth} layers, found {names}"
        )
    return outer[0]


def _shell(module: nn.Module) -> nn.Module:
    """A copy of one module object that shares its parameters, buffers and children."""
    twin = copy.copy(module)
    for registry in ("_modules", "_parameters", "_buffers"):
        twin.__dict__[registry] = dict(module.__dict__[registry])
    return twin


def _at_position(layer: nn.Module, position: int) -> nn.Module:
    """A shell of a layer whose every `layer_idx` is its position in the view."""
    twin = _shell(layer)
    if hasattr(twin, "layer_idx"):
        twin.layer_idx = position  # type: ignore[assignment]
    for name, child in layer._modules.items():
        if child is not None:
            twin._modules[name] = _at_position(child, position)
    return twin


def plan_view(model: PreTrainedModel, plan: LayerPlan) -> PreTrainedModel:
    """A model that runs `plan` and shares every parameter with `model`.

    Args:
        model: the source, loaded.
        plan: which layer runs at each position.

    Returns:
        A model of the same class with its own config and cache slots. Do not train it.

    Raises:
        UsageError: the plan is for another depth.
        UnsupportedModel: the stack cannot be found or the config cannot follow the plan.
    """
    path, layers = decoder_layers(model)
    if any(hasattr(module, "_hf_hook") for module in layers.modules()):
        # accelerate binds each layer's forward to the layer object, cache slot included.
        raise UnsupportedModel("a model spread over several devices has no views")
    if plan.depth != len(layers):
        raise UsageError(f"plan is for {plan.depth} layers, the model has {len(layers)}")
    raw = rewrite_config(model.config.to_dict(), plan)
    config = type(model.config).from_dict(raw)
    config._attn_implementation = model.config._attn_implementation
    stack = nn.ModuleList(_at_position(layers[i], at) for at, i in enumerate(plan.layers))
    view = _shell(model)
    view.config = config  # type: ignore[assignment]
    view.generation_config = copy.deepcopy(model.generation_config)  # type: ignore[assignment]
    parent = view
    *parents, leaf = path.split(".")
    for name in parents:
        child = _shell(parent._modules[name])  # type: ignore[arg-type]
        if hasattr(child, "config"):
            child.config = config  # type: ignore[assignment]
        parent._modules[name] = child
        parent = child
    parent._modules[leaf] = stack
    return view  # type: ignore[return-value]


def load_config(path: Path) -> Any:
    """The configuration class instance for a model folder (no weights, no remote code).

    Raises:
        UnsupportedModel: this version of transformers does not know the model type, or
            only remote code does.
        SurgeonError: the file is missing or cannot be read.
    """
    try:
        return AutoConfig.from_pretrained(path, trust_remote_code=False, local_files_only=True)
    except (ValueError, TypeError, ArithmeticError) as error:
        raise UnsupportedModel(
            f"transformers cannot use the config of `{path}`: {error}"
        ) from error
    except OSError as error:
        raise SurgeonError(f"cannot read the config of `{path}`: {error}") from error


def auto_class(config: Any) -> Any:
    """The auto class that makes a model with a language head from this config.

    Raises:
        UnsupportedModel: there is none: not a model that continues text.
    """
    for choice in (AutoModelForCausalLM, AutoModelForImageTextToText):
        if type(config) in choice._model_mapping:
            return choice
    raise UnsupportedModel(
        f"`{config.model_type}` models do not continue text, so there is no decoder to work on"
    )
