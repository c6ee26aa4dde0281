"""Per-layer meaning with an encoding of its own: one function each, all in `SPECIALS`.

Each function edits the config level that owns the stack, in place, before the general rules
see it, and does nothing where its keys are absent.
"""

import math
from collections.abc import Callable

from surgeon.checkpoint.generators import Level, dense_by_step, whole
from surgeon.errors import UnsupportedModel
from surgeon.plan import LayerPlan

Special = Callable[[Level, LayerPlan, str], None]


def attention_types(level: Level, plan: LayerPlan, model_type: str) -> None:
    """GPT-Neo: run lengths `[[["global", "local"], 12]]`; their expansion is dropped."""
    runs = level.get("attention_types")
    if model_type != "gpt_neo":
        return
    runs = [[["global", "local"], 12]] if runs is None else runs
    kinds = [kind for pattern, count in runs for _ in range(count) for kind in pattern]
    if len(kinds) != plan.depth:
        raise UnsupportedModel(
            f"config.json: `attention_types` describes {len(kinds)} layers of {plan.depth}"
        )
    level["attention_types"] = [[[kind], 1] for kind in plan.apply(kinds)]
    level.pop("attention_layers", None)


def block_types(level: Level, plan: LayerPlan, model_type: str) -> None:
    """RecurrentGemma: a cycle of kinds, cut at the depth; written out in full."""
    if model_type != "recurrent_gemma":
        return
    cycle = level.get("block_types") or ["recurrent", "recurrent", "attention"]
    kinds = [cycle[at % len(cycle)] for at in range(plan.depth)]
    wanted = plan.apply(kinds)
    if wanted != [cycle[at % len(cycle)] for at in range(len(plan))]:
        level["block_types"] = wanted


def depth_scale(level: Level, plan: LayerPlan, model_type: str) -> None:
    """MiniCPM-3: residuals are scaled by `scale_depth / sqrt(depth)`; the quotient is kept."""
    if model_type != "minicpm3" or ("scale_depth" in level and level["scale_depth"] is None):
        return
    level["scale_depth"] = level.get("scale_depth", 1.4) * math.sqrt(len(plan) / plan.depth)


def sparse_step(level: Level, plan: LayerPlan, model_type: str) -> None:
    """Qwen-MoE: experts in every n-th layer; written as the list of layers without."""
    if "decoder_sparse_step" not in level or level["decoder_sparse_step"] in (None, 1):
        return
    level["mlp_only_layers"] = dense_by_step(level, plan.depth)
    level["decoder_sparse_step"] = 1


def double_count(level: Level, plan: LayerPlan, model_type: str) -> None:
    """LongCat-Flash: `num_hidden_layers` counts two sublayers a layer."""
    if model_type == "longcat_flash" and "num_hidden_layers" in level:
        level["num_hidden_layers"] = 2 * len(plan)


def _periodic(flags: list[bool], limit: int) -> tuple[int, int] | None:
    """Period and offset with `flags[i] == (i % period == offset)`, or None."""
    for period in range(1, limit + 1):
        for offset in range(period):
            if all(flag == (at % period == offset) for at, flag in enumerate(flags)):
                return period, offset
    return None


def jamba_periods(level: Level, plan: LayerPlan, model_type: str) -> None:
    """Jamba: attention and experts by period and offset; another pair is looked for."""
    if model_type != "jamba":
        return
    defaults = {"attn_layer": (8, 4), "expert_layer": (2, 1)}
    for name, (default_period, default_offset) in defaults.items():
        period = whole(level, f"{name}_period", default_period)
        offset = whole(level, f"{name}_offset", default_offset, 0)
        flags = plan.apply([at % period == offset for at in range(plan.depth)])
        if flags == [at % period == offset for at in range(len(plan))]:
            continue
        found = _periodic(flags, len(plan) + 1)
        if found is None:
            raise UnsupportedModel(
                f"no period and offset of `{name}` describe the layers of plan {plan}",
                hint=f"choose a block of {period} layers",
            )
        level[f"{name}_period"], level[f"{name}_offset"] = found


def ernie_interval(level: Level, plan: LayerPlan, model_type: str) -> None:
    """Ernie-4.5-MoE: experts by start, end and interval; another triple is looked for."""
    if model_type != "ernie4_5_moe":
        return
    keys = ("moe_layer_start_index", "moe_layer_end_index", "moe_layer_interval")
    start, end, step = (
        whole(level, key, default, -1) for key, default in zip(keys, (1, -1, 1), strict=True)
    )

    def flags(start: int, end: int, step: int, depth: int) -> list[bool]:
        last = depth - 1 if end == -1 else end
        return [(at + 1) % step == 0 and start <= at <= last for at in range(depth)]

    wanted = plan.apply(flags(start, end, step, plan.depth))
    count = len(plan)
    same = (start, end if end == -1 else max(at for at, on in enumerate(wanted) if on), step)
    candidates = [same] if any(wanted) else []
    if any(wanted):
        chosen = [at for at, on in enumerate(wanted) if on]
        candidates += [(chosen[0], chosen[-1], n) for n in (step, *range(1, count + 1))]
    for candidate in candidates:
        if flags(*candidate, count) == wanted:
            level.update(zip(keys, candidate, strict=True))
            return
    raise UnsupportedModel(f"no start, end and interval of experts describe plan {plan}")


SPECIALS: tuple[Special, ...] = (
    attention_types,
    block_types,
    depth_scale,
    sparse_step,
    double_count,
    jamba_periods,
    ernie_interval,
)


def rewrite_specials(level: Level, plan: LayerPlan, model_type: str) -> None:
    """Apply every special encoding.

    Raises:
        UnsupportedModel: the plan cannot be represented.
    """
    for special in SPECIALS:
        special(level, plan, model_type)
