"""Quantisation settings that address layers by name, expanded to the layers of a plan.

Weights of quantised checkpoints travel byte for byte; what needs care are the lists of
modules that were left alone or treated differently (`modules_to_not_convert`, `ignore`,
`targets`, `dynamic`, `extra_config`, ...). An entry that names layer 7 must name every
position where layer 7 now runs.
"""

import re
from typing import Any

from surgeon.checkpoint.strict_json import shown
from surgeon.errors import UnsupportedModel
from surgeon.plan import LayerPlan

KEYS = ("quantization_config", "quantization", "compression_config")


def rewrite_quantization(config: dict[str, Any], plan: LayerPlan, prefix: str) -> None:
    """Rewrite the quantisation settings of a config, in place.

    Args:
        config: a config level, or the content of `quantize_config.json` and the like.
        plan: the plan.
        prefix: what stands before a layer number in tensor names, for example `model.layers.`.

    Raises:
        UnsupportedModel: an entry holds layer numbers in a form that is not understood.
    """
    for key in KEYS:
        if isinstance(config.get(key), dict):
            config[key] = expand_settings(config[key], plan, prefix)


def expand_settings(value: Any, plan: LayerPlan, prefix: str) -> Any:
    """The settings with every string, as value or key, expanded to the plan's positions.

    Raises:
        UnsupportedModel: an entry holds layer numbers in a form that is not understood.
    """
    if isinstance(value, dict):
        return {
            name: expand_settings(item, plan, prefix)
            for key, item in value.items()
            for name in expand_name(key, plan, prefix)
        }
    if isinstance(value, list):
        expanded: list[Any] = []
        for item in value:
            if isinstance(item, str):
                expanded += expand_name(item, plan, prefix)
            else:
                expanded.append(expand_settings(item, plan, prefix))
        return expanded
    if isinstance(value, str):
        names = expand_name(value, plan, prefix)
        if len(names) != 1:
            raise UnsupportedModel(
                f"quantisation settings: {shown(value)} names one layer, the plan makes "
                f"{len(names)} of it"
            )
        return names[0]
    return value


def expand_name(text: str, plan: LayerPlan, prefix: str) -> list[str]:
    """A module name or pattern, once for each position of the layer it names.

    Text without a layer number stays as it is. In a pattern the dot may be escaped.

    Raises:
        UnsupportedModel: a layer number is there, but not as a plain `layers.7`.
    """
    leaf = re.escape(prefix.rstrip(".").rpartition(".")[2] or "layers")
    found = list(re.finditer(rf"(?<![A-Za-z0-9_]){leaf}(\\?\.)(\d+)(?![\d|*+?{{\]])", text))
    if not found:
        if re.search(rf"(?<![A-Za-z0-9_]){leaf}\\?\.[^A-Za-z.]*\d", text):
            raise UnsupportedModel(
                f"quantisation settings: {shown(text)} holds layer numbers in a form that "
                "cannot be renumbered"
            )
        return [text]
    match = found[0]
    layer = int(match[2])
    if len(found) > 1 or layer >= plan.depth:
        raise UnsupportedModel(f"quantisation settings: {shown(text)} names no layer of the model")
    head, tail = text[: match.start(2)], text[match.end(2) :]
    return [f"{head}{at}{tail}" for at in plan.positions(layer)]
