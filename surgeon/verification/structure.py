"""The structural verifier: does a rewritten config describe the source's layers in plan order?

Source and result are built on the meta device, where tensors have shapes and no bytes. For
every position the result's layer must have the class, the parameter shapes and the scalar
attributes of the source layer the plan puts there; every per-layer list of the configuration
must be the source's list under the plan; everything outside the stack must have the shapes
and attributes it had. No family table is consulted.

Blind spot: values of buffers that a model computes from the layer number and that are not in
the file.
"""

import json
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging as transformers_logging

from surgeon.checkpoint.encodings import INDEX_SETS, PER_LAYER_LISTS
from surgeon.errors import UnsupportedModel
from surgeon.plan import LayerPlan

_POSITION_NAMES = frozenset({
    "layer_idx", "layer_id", "layer_number", "layer_index", "layer_num", "block_idx", "idx",
    "depth_idx", "num_hidden_layers", "num_layers", "n_layer", "n_layers", "attention_layers",
    "name_or_path",
})  # fmt: skip
_PLAIN = (bool, int, float, str, type(None), torch.dtype)


def check_structure(before: dict[str, Any], after: dict[str, Any], plan: LayerPlan) -> str:
    """Compare the models two configs describe.

    Args:
        before: config.json of the source, as parsed.
        after: config.json of the result.
        plan: which source layer runs at each position.

    Returns:
        What was found, in words.

    Raises:
        UnsupportedModel: a config cannot be built, or the result differs from the plan.
    """
    source, result = build(before, "the source"), build(after, "the result")
    if type(source) is not type(result):
        raise UnsupportedModel(
            f"the result is a {type(result).__name__}, the source a {type(source).__name__}"
        )
    path = _stack_path(source, result, plan)
    old, new = source.get_submodule(path), result.get_submodule(path)
    assert isinstance(old, nn.ModuleList) and isinstance(new, nn.ModuleList)
    signatures = [_signature(layer, source) for layer in old]
    same = _equal_keys(source.config, result.config)
    for at, layer in enumerate(plan.layers):
        _compare(signatures[layer], _signature(new[at], result), same, f"layer {layer} at {at}")
    _compare_lists(source, result, plan)
    _compare_outside(source, result, path, plan)
    return f"structure: {len(plan)} positions of {type(source).__name__} match their source layers"


def build(config: dict[str, Any], what: str) -> PreTrainedModel:
    """The model a config describes, on the meta device.

    Raises:
        UnsupportedModel: transformers cannot build it without code from the repository.
    """
    transformers_logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(_plain_weights(config)))
        try:
            parsed = AutoConfig.from_pretrained(folder, trust_remote_code=False)
            with torch.device("meta"):
                return _instantiate(parsed)
        # Configuration classes raise whatever their checks come across.
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, OSError) as error:
            raise _cannot_build(what, error) from error
        except (RuntimeError, ArithmeticError, AssertionError, ImportError) as error:
            raise _cannot_build(what, error) from error


def _cannot_build(what: str, error: Exception) -> UnsupportedModel:
    text = " ".join(str(error).split())[:300]
    return UnsupportedModel(f"transformers cannot build {what}: {type(error).__name__}: {text}")


def _plain_weights(config: dict[str, Any]) -> dict[str, Any]:
    """The config without quantisation: kernels are not installed, structure is the same."""
    return {key: value for key, value in config.items() if key != "quantization_config"}


def _instantiate(config: Any) -> PreTrainedModel:
    """The class config.json names, else the causal language model of the type."""
    names = getattr(config, "architectures", None) or []
    named = getattr(transformers, names[0], None) if names else None
    if isinstance(named, type) and issubclass(named, PreTrainedModel):
        config._attn_implementation = "eager"
        return named(config)
    automatic: Any = AutoModelForCausalLM
    model = automatic.from_config(config, attn_implementation="eager")
    assert isinstance(model, PreTrainedModel)
    return model


def _stack_path(source: PreTrainedModel, result: PreTrainedModel, plan: LayerPlan) -> str:
    """Path of the one outermost module list that follows the plan's depths."""
    lists = _outer_lists(source)
    after = _outer_lists(result)
    found = [
        path
        for path, depth in lists.items()
        if depth == plan.depth and after.get(path) == len(plan)
    ]
    if len(found) != 1:
        raise UnsupportedModel(
            f"{type(source).__name__}: expected one stack of {plan.depth} layers that becomes "
            f"{len(plan)}, found {found or 'none'}; stacks before {lists}, after {after}"
        )
    return found[0]


def _outer_lists(model: PreTrainedModel) -> dict[str, int]:
    """Paths and lengths of the module lists that are inside no other one."""
    found: dict[str, int] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and not any(
            name.startswith(f"{outer}.") for outer in found
        ):
            found[name] = len(module)
    return found


Signature = dict[tuple[str, str], Any]
"""(module path within the layer, attribute) to a comparable value."""


def _signature(layer: nn.Module, model: PreTrainedModel) -> Signature:
    """Everything of a layer that decides what it computes, weights aside."""
    found: Signature = {}
    for path, module in layer.named_modules():
        found[path, "class"] = type(module).__qualname__
        for name, tensor in [
            *module.named_parameters(recurse=False),
            *module.named_buffers(recurse=False),
        ]:
            found[path, f"{name} shape"] = (tuple(tensor.shape), tensor.dtype)
        found.update({(path, name): value for name, value in _attributes(module)})
        own = getattr(module, "config", None)
        if own is not None and own is not model.config and hasattr(own, "to_dict"):
            found.update({(path, f"config.{k}"): v for k, v in _scalars(vars(own))})
    return found


def _attributes(module: nn.Module) -> Iterator[tuple[str, Any]]:
    yield from _scalars(vars(module))
    for name, value in vars(module).items():
        if callable(value) and hasattr(value, "__qualname__") and not isinstance(value, type):
            yield name, value.__qualname__


def _scalars(values: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if name in _POSITION_NAMES or name.startswith("_"):
            continue
        if isinstance(value, _PLAIN):
            yield name, value
        elif isinstance(value, tuple | list) and all(isinstance(item, _PLAIN) for item in value):
            yield name, tuple(value)


def _equal_keys(before: Any, after: Any) -> set[str]:
    """Config attributes that are equal in both, over all levels."""
    levels = [(before, after), (before.get_text_config(), after.get_text_config())]
    differ = {
        key
        for old, new in levels
        for key, value in vars(old).items()
        if vars(new).get(key) != value
    }
    return {key for old, _ in levels for key in vars(old)} - differ


def _compare(old: Signature, new: Signature, same: set[str], what: str) -> None:
    """Raise on the first difference between two layers."""
    for key in old.keys() | new.keys():
        path, name = key
        if name.startswith("config.") and name.removeprefix("config.") not in same:
            continue  # the config itself differs there, which is judged elsewhere
        if not _same(old.get(key), new.get(key)):
            where = f"{path}.{name}" if path else name
            raise UnsupportedModel(
                f"the result would differ from the plan: {what} has `{where}` = "
                f"{new.get(key)!r}, the source has {old.get(key)!r}"
            )


def _same(old: Any, new: Any) -> bool:
    """Equal; floats up to rounding, since a scale may be rewritten as a quotient."""
    if isinstance(old, float) and isinstance(new, float):
        return math.isclose(old, new, rel_tol=1e-12)
    return bool(old == new)


def _config_lists(config: Any) -> dict[str, list[Any]]:
    """List attributes of a configuration, those its class computes included."""
    found = {k: list(v) for k, v in vars(config).items() if isinstance(v, list | tuple)}
    for base in type(config).__mro__:
        if base.__module__ == "transformers.configuration_utils":
            break
        for name, member in vars(base).items():
            if isinstance(member, property):
                value = getattr(config, name, None)
                if isinstance(value, list | tuple):
                    found[name] = list(value)
    return found


def _compare_lists(source: PreTrainedModel, result: PreTrainedModel, plan: LayerPlan) -> None:
    """Every list with one entry per layer must follow the plan."""
    levels = {id(c): c for c in (source.config, source.config.get_text_config())}
    after = [result.config, result.config.get_text_config()][-len(levels) :]
    for old, new in zip(levels.values(), after, strict=True):
        new_lists = _config_lists(new)
        for name, value in _config_lists(old).items():
            if len(value) != plan.depth or name in INDEX_SETS:
                continue
            now = new_lists.get(name)
            unchanged = now == value and name not in PER_LAYER_LISTS
            if now != plan.apply(value) and not unchanged:
                raise UnsupportedModel(
                    f"the result would differ from the plan: config `{name}` is {now}, "
                    f"expected {plan.apply(value)}"
                )


def _compare_outside(
    source: PreTrainedModel, result: PreTrainedModel, path: str, plan: LayerPlan
) -> None:
    """Everything beside the stack keeps its shapes and attributes."""
    old, new = (_outside(model, path) for model in (source, result))
    for key in old.keys() | new.keys():
        before, after = old.get(key), new.get(key)
        if before != after and (before, after) != (plan.depth, len(plan)):
            raise UnsupportedModel(
                f"the result would differ outside its layers: `{'.'.join(key)}` is {after!r}, "
                f"the source has {before!r}"
            )


def _outside(model: PreTrainedModel, path: str) -> Signature:
    found: Signature = {}
    for name, module in model.named_modules():
        if name == path or name.startswith(f"{path}."):
            continue
        found[name, "class"] = type(module).__qualname__
        for key, tensor in [
            *module.named_parameters(recurse=False),
            *module.named_buffers(recurse=False),
        ]:
            found[name, f"{key} shape"] = (tuple(tensor.shape), tensor.dtype)
        found.update({(name, key): value for key, value in _attributes(module)})
    return found
