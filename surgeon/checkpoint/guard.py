"""The size guard: logical parameters, counted from headers, before any weight is read.

The finding the tool stands on: running a block of layers twice helped models up to 3B and
hurt models of 7B and above. A model is 7B class from 6.5e9 logical parameters on; no
mainstream decoder lies between 6.25e9 and 6.64e9, while names and rounded sizes disagree in
both directions. There is no switch.
"""

import math
import re
from collections.abc import Iterable
from typing import Any, Literal

from surgeon.checkpoint.config import stack_level
from surgeon.checkpoint.header import Tensor
from surgeon.checkpoint.store import Checkpoint
from surgeon.errors import TooLarge
from surgeon.record import Record

LARGE = 6_500_000_000  # the smallest published "7B" decoder has 6.649e9, the largest "6B" 6.24e9
MEASURED = 3_000_000_000  # the largest size the finding was measured at is called 3B
SizeClass = Literal["measured", "unmeasured", "large"]

# State that is stored but not learned: masks, rotary tables, quantisation scales.
_NOT_PARAMETERS = re.compile(
    r"(\.masked_bias|rotary_emb\.inv_freq|position_ids|embed_positions|_scale|_scale_inv|\.scales"
    r"|\.qzeros|_zero_point|\.zeros|\.g_idx|\.SCB|\.absmax|\.quant_map|\.nested_absmax"
    r"|\.nested_quant_map|quant_state\..*|\.weight_shape|\.weight_format|slope_rate|_decay"
    r"|_scales|\.weight_g_idx|\.activation_scale|\.scale)$"
)
_MASK = re.compile(r"(\.attn\.bias|\.attention\.bias)$")
_PACKED = re.compile(r"\.(qweight|weight_packed)$")
_HEADS = ("lm_head.weight", "embed_out.weight")
_EXPERT = re.compile(r"\.experts?\.(\d+\.|gate_up_proj|down_proj|w[123]|mlp)")
_TOWER = re.compile(r"^(model\.)?(visual|vision|audio|multi_modal|image|speech|mm_|embed_vision)")
_INTEGERS = {"BOOL", "U8", "I8", "I16", "U16", "I32", "U32", "I64", "U64"}


class ParameterCount(Record):
    """Logical parameters of a checkpoint, each stored weight counted once.

    Args:
        total: of the language model, prediction layers and towers left out.
        active: used for one token; less than `total` with experts.
        stored_elements: elements as stored, packed formats not unpacked.
        prediction: in extra prediction (MTP) layers.
        towers: in image and audio towers.
        tied_head: whether the output head is the embedding.
    """

    total: int
    active: int
    stored_elements: int
    prediction: int
    towers: int
    tied_head: bool


def count_parameters(checkpoint: Checkpoint) -> ParameterCount:
    """Count logical parameters from headers alone.

    Packed integers are unpacked by their bit width, tied heads counted once, masks and
    quantisation scales left out.
    """
    names = checkpoint.by_name
    tied = _tied_head(checkpoint)
    total = prediction = towers = routed = 0
    for tensor in names.values():
        if tied and tensor.name.endswith(_HEADS):
            continue
        count = _logical(tensor, names, checkpoint.config)
        if _TOWER.match(tensor.name):
            towers += count
        elif checkpoint.stack.is_prediction(tensor.name):
            prediction += count
        else:
            total += count
            routed += count if _EXPERT.search(tensor.name) else 0
    return ParameterCount(
        total=total,
        active=total - routed + _active_share(routed, checkpoint),
        stored_elements=sum(tensor.numel for tensor in names.values()),
        prediction=prediction,
        towers=towers,
        tied_head=tied or not any(name.endswith(_HEADS) for name in names),
    )


def _active_share(routed: int, checkpoint: Checkpoint) -> int:
    """Expert parameters one token uses: the share chosen per token."""
    level = checkpoint.level
    experts = _first_count(level, ("num_local_experts", "num_experts", "n_routed_experts"))
    chosen = _first_count(
        level, ("num_experts_per_tok", "num_experts_per_token", "moe_k", "moe_topk")
    )
    if not experts or not chosen:
        return routed
    return math.ceil(routed * min(chosen, experts) / experts)


def _first_count(level: dict[str, Any], keys: Iterable[str]) -> int:
    found = (level[key] for key in keys if type(level.get(key)) is int)
    return next(found, 0)


def _tied_head(checkpoint: Checkpoint) -> bool:
    """Whether a stored head is a second copy of the embedding, by the config's flag."""
    for level in (checkpoint.level, checkpoint.config):
        flag = level.get("tie_word_embeddings")
        if isinstance(flag, bool):
            return flag
    # Absent means the class default, which is "tied" for the families below only.
    return checkpoint.model_type.startswith(("gemma", "gpt2", "bloom", "falcon", "opt", "codegen"))


def _logical(tensor: Tensor, names: dict[str, Tensor], config: dict[str, Any]) -> int:
    """Parameters one stored tensor stands for."""
    name = tensor.name
    if _MASK.search(name) and len(tensor.shape) == 4:
        return 0
    if _PACKED.search(name):
        return tensor.numel * 8 * tensor.item_bytes // _bits(config)
    if name.endswith("_blocks") and tensor.dtype == "U8":
        return tensor.numel * 2  # MXFP4: two values a byte
    if tensor.dtype in ("F4", "U8") and name.endswith(".weight"):
        return tensor.numel * (2 if _two_in_a_byte(tensor, names) else 1)
    if _NOT_PARAMETERS.search(name):
        return 0
    if tensor.dtype in _INTEGERS - {"I8"}:
        return 0
    return tensor.numel


def _two_in_a_byte(tensor: Tensor, names: dict[str, Tensor]) -> bool:
    """Bitsandbytes 4-bit and NVFP4 weights: bytes with a quantisation record beside them."""
    if tensor.dtype != "U8":
        return False
    beside = (".quant_state.bitsandbytes__nf4", ".quant_state.bitsandbytes__fp4", ".absmax")
    if any(tensor.name + ending in names for ending in beside):
        return True
    scale = names.get(tensor.name + "_scale")
    return scale is not None and scale.dtype.startswith("F8")


def _bits(config: dict[str, Any]) -> int:
    """Bit width of packed integers by the quantisation settings; 4 where they do not say."""
    settings = config.get("quantization_config") or stack_level(config).get("quantization_config")
    found = _find_bits(settings) if isinstance(settings, dict) else None
    return found if found in (2, 3, 4, 5, 6, 8) else 4


def _find_bits(value: dict[str, Any]) -> int | None:
    for key in ("bits", "w_bit", "num_bits"):
        if type(value.get(key)) is int:
            return int(value[key])
    for inner in value.values():
        if isinstance(inner, dict):
            found = _find_bits(inner)
            if found:
                return found
    return None


def size_class(parameters: int) -> SizeClass:
    """`measured` (up to 3B), `unmeasured` (3B to 7B), or `large` (7B class)."""
    if parameters >= LARGE:
        return "large"
    return "unmeasured" if parameters >= MEASURED else "measured"


def refuse_large(checkpoint: Checkpoint) -> list[str]:
    """Refuse the 7B class; there is no switch.

    Returns:
        Warnings: one if the size lies in the range that has not been measured.

    Raises:
        TooLarge: 6.5e9 logical parameters or more.
    """
    total = count_parameters(checkpoint).total
    kind = size_class(total)
    if kind == "large":
        raise TooLarge(
            f"the model has {total / 1e9:.2f}e9 parameters; from 6.5e9 on it is 7B class, where "
            "duplicating layers made models worse (it helped up to 3B and hurt at 7B and above)",
            hint="use a smaller model; there is no switch for this rule",
        )
    if kind == "unmeasured":
        return [
            f"the model has {total / 1e9:.2f}e9 parameters: between 3B and 7B the effect of "
            "duplicating layers has not been measured"
        ]
    return []
