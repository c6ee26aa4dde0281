"""How a config says something about single layers, and what a plan makes of each way.

    a list with one entry per layer      permuted by the plan
    a string with one letter per layer   permuted by the plan
    a set of layer numbers               the positions whose source layer is in it
    a map from layer number to values    re-keyed, the values travel
    "the first k layers"                 k is counted anew; refused where no k says it

A list that happens to have one entry per layer and is not known is refused: it may mean the
layers or may not, and guessing wrong makes a model that loads and computes something else.
"""

from collections.abc import Iterable
from typing import Any

from surgeon.checkpoint.families import Family
from surgeon.checkpoint.generators import Level
from surgeon.errors import UnsupportedModel
from surgeon.plan import LayerPlan

PER_LAYER_LISTS = frozenset({
    "layer_types", "mlp_layer_types", "layers_block_type", "no_rope_layers", "layer_rope_theta",
    "num_attention_heads_per_layer", "activation_sparsity_pattern", "intermediate_size",
    "num_experts", "moe_topk", "num_shared_expert", "moe_intermediate_size",
    "num_key_value_heads", "num_attention_heads", "indexer_types", "swiglu_limits",
    "swiglu_limits_shared", "compress_ratios", "sparse_attention_freq", "moe_layer_freq",
    "hybrid_layer_pattern", "num_query_heads", "num_kv_heads", "ffn_multipliers",
    "attention_layers",
})  # fmt: skip
LONGER_ALLOWED = frozenset({"no_rope_layers", "moe_layer_freq"})  # classes read the first N
PER_LAYER_STRINGS = frozenset({"hybrid_override_pattern", "index_topk_pattern"})
INDEX_SETS = {
    "mlp_only_layers": 0,
    "moe_layers": 0,
    "attn_layer_indices": 0,
    "full_attn_idxs": 0,
    "local_layer_ids": 0,
    "hybrid_layer_ids": 0,
    "full_attn_layers": 1,
    "kda_layers": 1,
}
"""Name to the number of the first layer."""
INDEX_MAPS = frozenset({"per_layer_config"})
THRESHOLDS = frozenset(
    {"first_k_dense_replace", "num_dense_layers", "max_window_layers", "num_hash_layers"}
)
NOT_PER_LAYER = frozenset({
    "architectures", "eos_token_id", "bos_token_id", "pad_token_id", "suppress_tokens",
    "begin_suppress_tokens", "forced_decoder_ids", "bad_words_ids", "keys_to_ignore_at_inference",
    "long_factor", "short_factor", "mrope_section", "time_step_limit", "attention_types",
    "block_types",
})  # fmt: skip
OTHER_SUBJECTS = frozenset({
    "vision_config", "audio_config", "speech_config", "video_config", "vision_tower",
    "rope_scaling", "rope_parameters", "quantization_config", "auto_map", "id2label", "label2id",
    "task_specific_params", "generation_config", "pretrained_config",
})  # fmt: skip
"""Keys whose values do not speak of decoder layers."""


def rewrite_entries(level: Level, plan: LayerPlan, where: str = "") -> None:
    """Rewrite lists, strings, index sets and index maps of one config level, in place.

    Args:
        level: the config level that owns the stack, or an object inside it.
        plan: the plan.
        where: dotted path of the level, for messages.

    Raises:
        UnsupportedModel: an entry disagrees with the depth, or is not known.
    """
    for key, value in level.items():
        name = f"{where}{key}"
        if key in OTHER_SUBJECTS or key in NOT_PER_LAYER:
            continue
        if key in INDEX_MAPS and isinstance(value, dict):
            level[key] = _map(value, plan, name)
        elif key in INDEX_SETS and isinstance(value, list):
            level[key] = index_set(value, plan, INDEX_SETS[key], name)
        elif key in PER_LAYER_LISTS and isinstance(value, list):
            level[key] = _list(value, plan, name)
        elif key in PER_LAYER_STRINGS and isinstance(value, str):
            level[key] = "".join(_list(list(value), plan, name))
        elif isinstance(value, list) and len(value) == plan.depth > 1:
            raise UnsupportedModel(
                f"config.json: `{name}` has one entry per layer ({plan.depth}) and is not known"
            )
        elif isinstance(value, dict):
            _refuse_unknown_map(value, plan.depth, name)
            rewrite_entries(value, plan, f"{name}.")


def _list(value: list[Any], plan: LayerPlan, name: str) -> list[Any]:
    leaf = name.rpartition(".")[2]
    if len(value) > plan.depth and leaf in LONGER_ALLOWED:
        value = value[: plan.depth]
    if len(value) != plan.depth:
        raise UnsupportedModel(
            f"config.json: `{name}` has {len(value)} entries for {plan.depth} layers"
        )
    return plan.apply(value)


def index_set(value: list[Any], plan: LayerPlan, base: int, name: str) -> list[int]:
    """The positions whose source layer is in the set.

    Args:
        value: layer numbers.
        plan: the plan.
        base: number of the first layer, 0 or 1.
        name: config key for messages.

    Raises:
        UnsupportedModel: not layer numbers.
    """
    if not all(type(item) is int and item >= base for item in value):
        raise UnsupportedModel(f"config.json: `{name}` is not a list of layer numbers")
    chosen = {item - base for item in value}
    return [at + base for at, layer in enumerate(plan.layers) if layer in chosen]


def _map(value: dict[Any, Any], plan: LayerPlan, name: str) -> dict[str, Any]:
    """Re-key by layer number; keys that are no numbers (kinds of layers) stay."""
    numbered = {int(key): item for key, item in value.items() if str(key).isdecimal()}
    if any(layer >= plan.depth for layer in numbered):
        raise UnsupportedModel(f"config.json: `{name}` names a layer over {plan.depth - 1}")
    kept = {key: item for key, item in value.items() if not str(key).isdecimal()}
    moved = {str(at): numbered[layer] for at, layer in enumerate(plan.layers) if layer in numbered}
    return {**kept, **moved}


def _refuse_unknown_map(value: dict[str, Any], depth: int, name: str) -> None:
    if depth > 1 and set(map(str, value)) == {str(layer) for layer in range(depth)}:
        raise UnsupportedModel(
            f"config.json: `{name}` has one entry per layer ({depth}) and is not known"
        )


def rewrite_thresholds(level: Level, plan: LayerPlan, family: Family) -> None:
    """Count "the first k layers" anew, in place.

    Raises:
        UnsupportedModel: the plan puts other layers among the first ones, and the family has
            no list that could say so.
    """
    for key in sorted({*family.thresholds, *(THRESHOLDS & level.keys())}):
        stated = level.get(key)
        first = family.thresholds.get(key) if stated is None else stated
        if type(first) is not int:
            continue
        inside = [layer < first for layer in plan.layers]
        count = sum(inside)
        is_prefix = all(inside[:count])
        if not is_prefix and key not in family.overruled:
            raise UnsupportedModel(
                f"`{key}` is {first}, and the plan {plan} crosses that boundary: "
                "no other value describes the result",
                hint=f"choose a block on one side of layer {first}",
            )
        if not is_prefix:
            count = inside.index(False)
        if first >= plan.depth:
            count = max(first, len(plan)) if first != plan.depth else len(plan)
        if stated is not None or (count != first and key not in family.overruled):
            level[key] = count


def per_layer_values(level: Level, depth: int) -> Iterable[tuple[str, list[Any]]]:
    """Known per-layer lists that the level states, for reports."""
    for key, value in level.items():
        if key in PER_LAYER_LISTS and isinstance(value, list) and len(value) == depth:
            yield key, value
