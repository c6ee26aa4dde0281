"""Rewrite a config.json for a layer plan, touching only what speaks of single layers.

Everything else stays as it is in the file: keys nobody knows, their order, numbers as written.
The cure for the silent class of errors (a checkpoint that loads and computes something else)
is to write down the per-layer list that the configuration class derives for the *source*, and
to permute that list, wherever the same rule over the new depth would say something else.
"""

import copy
from typing import Any

from surgeon.checkpoint.encodings import INDEX_SETS, index_set, rewrite_entries, rewrite_thresholds
from surgeon.checkpoint.families import Family, require_supported
from surgeon.checkpoint.generators import Level, exaone_pattern
from surgeon.checkpoint.quantization import rewrite_quantization
from surgeon.checkpoint.specials import rewrite_specials
from surgeon.errors import UnsupportedModel
from surgeon.plan import MAX_LAYERS, LayerPlan

COUNT_KEYS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_transformer_layers")
EXTRA_KEYS = ("num_nextn_predict_layers", "num_mtp_layers", "mtp_num_hidden_layers")
TEXT_KEYS = ("text_config", "llm_config", "language_config")


def stack_level(config: dict[str, Any]) -> Level:
    """The level of a config that owns the decoder stack: the text tower's, or the top."""
    for key in TEXT_KEYS:
        inner = config.get(key)
        if isinstance(inner, dict):
            return inner
    return config


def model_type_of(config: dict[str, Any]) -> str:
    """The model type of the decoder.

    Raises:
        UnsupportedModel: there is none.
    """
    level = stack_level(config)
    name = level.get("model_type", config.get("model_type"))
    if not isinstance(name, str) or not name:
        raise UnsupportedModel("config.json has no `model_type`")
    return name


def layer_count(config: dict[str, Any]) -> int | None:
    """Decoder layers by the config; None where it leaves them to its class.

    Raises:
        UnsupportedModel: not a count, or out of bounds.
    """
    level = stack_level(config)
    if model_type_of(config) == "longcat_flash" and "num_layers" in level:
        return _count(level, "num_layers")
    for key in COUNT_KEYS:
        if level.get(key) is not None:
            return _count(level, key)
    for key in ("layers_block_type", "hybrid_override_pattern", "layer_types"):
        if isinstance(level.get(key), list | str):
            return len(level[key])
    return None


def _count(level: Level, key: str) -> int:
    value = level[key]
    if type(value) is not int or not 1 <= value <= MAX_LAYERS:
        raise UnsupportedModel(
            f"config.json: `{key}` is {value!r}, expected a number from 1 to {MAX_LAYERS}"
        )
    return value


def extra_layers(config: dict[str, Any]) -> int:
    """Prediction layers that may be stored behind the decoder layers."""
    level = stack_level(config)
    found = [level[key] for key in EXTRA_KEYS if type(level.get(key)) is int]
    return max([count for count in found if 0 <= count <= 64], default=0)


def without_prediction(config: dict[str, Any]) -> dict[str, Any]:
    """The config of the same model without prediction layers."""
    result = copy.deepcopy(config)
    for level in (result, stack_level(result)):
        level.update({key: 0 for key in EXTRA_KEYS if key in level})
    return result


def refuse_unsupported(config: dict[str, Any]) -> Family:
    """What is known about the model's family.

    Raises:
        UnsupportedModel: an encoder, an encoder-decoder, a refused family, or remote code.
    """
    for level in (config, stack_level(config)):
        if level.get("is_encoder_decoder"):
            name = level.get("model_type", "unnamed")
            raise UnsupportedModel(
                f"`{name}` is an encoder-decoder; encoder-decoder models are not supported"
            )
        if "model_type" in level:
            require_supported(str(level["model_type"]))
    family = require_supported(model_type_of(config))
    if family.verdict == "unknown" and isinstance(config.get("auto_map"), dict):
        raise UnsupportedModel(
            f"model type `{model_type_of(config)}` needs code from its repository, which is "
            "never run, so the result could not be verified"
        )
    return family


def spelled_out(config: dict[str, Any], depth: int) -> dict[str, Any]:
    """The config with the lists written down that transformers 5.23 cannot derive itself.

    EXAONE-4's pattern may be a string such as `LLLG`, and there may be no window; its class
    takes the pattern for a number other than 0 and fails, unless `layer_types` is there.
    """
    level = stack_level(config)
    if model_type_of(config) not in ("exaone4", "exaone_moe") or level.get("layer_types"):
        return config
    pattern = level.get("sliding_window_pattern", 4)
    windowed = level.get("sliding_window", 4096) is not None
    if windowed and isinstance(pattern, int) and pattern:
        return config
    result = copy.deepcopy(config)
    stack_level(result)["layer_types"] = exaone_pattern(level, depth)
    return result


def rewrite_config(
    config: dict[str, Any], plan: LayerPlan, *, prefix: str = "layers."
) -> dict[str, Any]:
    """The config of the model that `plan` makes.

    Args:
        config: config.json as parsed; not changed.
        plan: for the depth of this config.
        prefix: what stands before a layer number in tensor names; quantisation settings
            address layers with it.

    Returns:
        A new config, edited only where it speaks of single layers.

    Raises:
        UnsupportedModel: the family is refused, or no config can describe the result.
    """
    family = refuse_unsupported(config)
    model_type = model_type_of(config)
    config = spelled_out(config, plan.depth)
    result = copy.deepcopy(config)
    before, level = stack_level(config), stack_level(result)
    reason = family.condition(before, plan) if family.condition else None
    if reason:
        raise UnsupportedModel(f"model type `{model_type}`, plan {plan}: {reason}")
    rewrite_specials(level, plan, model_type)
    rewrite_entries(level, plan)
    rewrite_thresholds(level, plan, family)
    _rewrite_count(level, plan, model_type)
    _write_derived(before, level, plan, family)
    for quantised in {id(result): result, id(level): level}.values():
        rewrite_quantization(quantised, plan, prefix)
    return result


def _rewrite_count(level: Level, plan: LayerPlan, model_type: str) -> None:
    """Every key that states the depth; one is added where the class default was meant."""
    stated = [key for key in COUNT_KEYS if level.get(key) is not None]
    matching = [key for key in stated if level[key] == plan.depth]
    if model_type == "longcat_flash":
        stated = matching = ["num_layers"]
    if stated and not matching:
        raise UnsupportedModel(
            f"config.json: `{stated[0]}` is {level[stated[0]]}, the model has {plan.depth} layers"
        )
    if not stated and model_type == "nemotron_h":
        return  # its depth is the length of its list of layers
    for key in matching or ["num_hidden_layers"]:
        level[key] = len(plan)


def _write_derived(before: Level, level: Level, plan: LayerPlan, family: Family) -> None:
    """Write down a list the class derives, where its rule no longer describes the layers."""
    for key, generate in family.derived.items():
        if before.get(key) is not None:
            continue
        source = generate(before, plan.depth)
        if key in INDEX_SETS:
            wanted = index_set(source, plan, INDEX_SETS[key], key)
        else:
            wanted = plan.apply(source)
        if generate(level, len(plan)) != wanted:
            level[key] = wanted
