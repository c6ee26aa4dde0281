"""Per-layer lists that a configuration class derives when config.json does not state them.

Each function takes the config level that owns the stack and the depth, and returns the list
the class of transformers 5.23 makes of it. A copy of layers needs the list itself: the same
rule over more layers gives other kinds to the layers behind the copy.
"""

from collections.abc import Callable
from typing import Any

from surgeon.errors import UnsupportedModel

Level = dict[str, Any]
Generator = Callable[[Level, int], list[Any]]

FULL, SLIDING, LINEAR = "full_attention", "sliding_attention", "linear_attention"


def constant(value: str) -> Generator:
    """The same entry for every layer."""
    return lambda level, depth: [value] * depth


def whole(level: Level, key: str, default: int, least: int = 1) -> int:
    """An integer of the config, or its class default where absent or null.

    Raises:
        UnsupportedModel: it is not an integer of at least `least`.
    """
    value = level.get(key)
    value = default if value is None else value
    if type(value) is not int or value < least:
        raise UnsupportedModel(f"config.json: `{key}` is {value!r}, expected an integer")
    return value


def every(
    default: int, chosen: str, other: str, key: str | None = None, *, first: bool = False
) -> Generator:
    """`chosen` for one layer in a period, `other` for the rest.

    Args:
        default: the period of the class.
        chosen: kind of the last layer of each period, or of the first with `first`.
        other: kind of the other layers.
        key: config key that overrides the period.
        first: whether the period starts, instead of ends, with the chosen kind.
    """

    def build(level: Level, depth: int) -> list[str]:
        period = whole(level, key, default) if key else default
        shift = 0 if first else 1
        return [chosen if (at + shift) % period == 0 else other for at in range(depth)]

    return build


def first_then(default: int, head: str, tail: str, key: str | None = None) -> Generator:
    """`head` for the first layers, `tail` for the rest; `key` overrides how many."""

    def build(level: Level, depth: int) -> list[str]:
        count = min(depth, whole(level, key, default, 0) if key else default)
        return [head] * count + [tail] * (depth - count)

    return build


def window_after_threshold(level: Level, depth: int) -> list[str]:
    """Qwen2, Qwen3: sliding from `max_window_layers` on, where sliding windows are in use."""
    active = level.get("use_sliding_window") and level.get("sliding_window", 4096) is not None
    threshold = whole(level, "max_window_layers", 28, 0) if active else depth
    return [SLIDING if at >= threshold else FULL for at in range(depth)]


def window_alternating(level: Level, depth: int) -> list[str]:
    """Qwen2-MoE: every other layer slides, below `max_window_layers`."""
    active = bool(level.get("use_sliding_window", False))
    threshold = whole(level, "max_window_layers", 28, 0)
    return [SLIDING if active and (at + 1) % 2 and at < threshold else FULL for at in range(depth)]


def exaone_pattern(level: Level, depth: int) -> list[str]:
    """EXAONE-4: a period, or a string such as `LLLG` (L slides, G is global)."""
    if "sliding_window" in level and level["sliding_window"] is None:
        return [FULL] * depth
    pattern = level.get("sliding_window_pattern", 4)
    if isinstance(pattern, str):
        if not pattern or set(pattern) - {"L", "G"}:
            raise UnsupportedModel(f"config.json: `sliding_window_pattern` is {pattern!r}")
        kinds = [FULL if letter == "G" else SLIDING for letter in pattern]
        # The last layer is global whatever the pattern says, as in the model's own code.
        return [kinds[at % len(kinds)] if at < depth - 1 else FULL for at in range(depth)]
    if not pattern:
        return [FULL] * depth
    return every(4, FULL, SLIDING, "sliding_window_pattern")(level, depth)


def rope_flags(level: Level, depth: int) -> list[int]:
    """SmolLM3, Llama-4: 1 where a layer has rotary embeddings, every 4th has none."""
    period = whole(level, "no_rope_layer_interval", 4)
    return [int((at + 1) % period != 0) for at in range(depth)]


def _stated_rope_flags(level: Level, depth: int) -> list[int]:
    stated = level.get("no_rope_layers")
    return stated[:depth] if stated else rope_flags(level, depth)


def smollm3_windows(level: Level, depth: int) -> list[str]:
    """SmolLM3: layers without rotary embeddings slide, where sliding windows are in use."""
    active = level.get("use_sliding_window") and level.get("sliding_window") is not None
    return [SLIDING if active and not flag else FULL for flag in _stated_rope_flags(level, depth)]


def llama4_chunks(level: Level, depth: int) -> list[str]:
    """Llama-4: layers with rotary embeddings attend within chunks."""
    return ["chunked_attention" if flag else FULL for flag in _stated_rope_flags(level, depth)]


def llama4_experts(level: Level, depth: int) -> list[int]:
    """Llama-4: indices of the layers with experts."""
    step = whole(level, "interleave_moe_layer_step", 1)
    return list(range(step - 1, depth, step))


def mimo_windows(level: Level, depth: int) -> list[str]:
    """MiMo-V2: full attention in layer 0 and in every 6th."""
    return [FULL if at == 0 or (at + 1) % 6 == 0 else SLIDING for at in range(depth)]


def dots1_windows(level: Level, depth: int) -> list[str]:
    """dots1: sliding from `max_window_layers` on, where there is a window."""
    active = level.get("sliding_window", 4096) is not None
    threshold = whole(level, "max_window_layers", 62, 0) if active else depth
    return [SLIDING if at >= threshold else FULL for at in range(depth)]


def lfm3_kinds(level: Level, depth: int) -> list[str]:
    """LFM3: convolutions, with full and sliding attention each once in four layers."""
    kinds = {2: FULL, 0: SLIDING}
    return [kinds.get(at % 4, "conv") if at else "conv" for at in range(depth)]


def flint_windows(level: Level, depth: int) -> list[str]:
    """Flint: full attention in layers 0, 1, the last, and one in four."""
    return [FULL if at < 2 or at % 4 == 1 or at == depth - 1 else SLIDING for at in range(depth)]


def sparse_by_frequency(level: Level, depth: int) -> list[str]:
    """A.X-K1: experts from a threshold on, in every n-th layer."""
    first = whole(level, "first_k_dense_replace", 1, 0)
    step = whole(level, "moe_layer_freq", 1)
    return ["sparse" if at >= first and at % step == 0 else "dense" for at in range(depth)]


def kimi_attention(level: Level, depth: int) -> list[str]:
    """Kimi-Linear: kinds from the 1-based index lists, else every 4th layer after the first."""
    linear = level.get("linear_attn_config") or {}
    if "full_attn_layers" in linear and "kda_layers" in linear:
        full = {number - 1 for number in linear["full_attn_layers"]}
        return [FULL if at in full else LINEAR for at in range(depth)]
    return [FULL if at and at % 4 == 0 else LINEAR for at in range(depth)]


def lfm2_kinds(level: Level, depth: int) -> list[str]:
    """LFM2: full attention where `full_attn_idxs` says so, convolutions elsewhere."""
    stated = level.get("full_attn_idxs")
    full = set(range(depth)) if stated is None else set(stated)
    return [FULL if at in full else "conv" for at in range(depth)]


def dense_by_step(level: Level, depth: int) -> list[int]:
    """Qwen-MoE: indices of the layers without experts, with `decoder_sparse_step` resolved."""
    stated = set(level.get("mlp_only_layers") or [])
    step = whole(level, "decoder_sparse_step", 1)
    return [at for at in range(depth) if at in stated or (at + 1) % step]


def olmo_hybrid_kinds(level: Level, depth: int) -> list[str]:
    """OLMo-hybrid: every 4th layer attends, and at least the last one does."""
    kinds = [FULL if at % 4 == 3 else LINEAR for at in range(depth)]
    return kinds if FULL in kinds else [*kinds[:-1], FULL]


def indexer_kinds(level: Level, depth: int) -> list[str]:
    """GLM-MoE-DSA: which layers compute their own top-k and which share the one before."""
    pattern = level.get("index_topk_pattern")
    if isinstance(pattern, str | list):
        return ["full" if letter in ("F", "full") else "shared" for letter in pattern][:depth]
    step, offset = whole(level, "index_topk_freq", 1), whole(level, "index_skip_topk_offset", 2, 0)
    return ["full" if max(at - offset + 1, 0) % step == 0 else "shared" for at in range(depth)]


def cohere2_moe_windows(level: Level, depth: int) -> list[str]:
    """Cohere2-MoE: one period over the dense first layers, another over the rest."""
    head = min(depth, whole(level, "first_k_dense_replace", 0, 0))
    first = every(1, FULL, SLIDING, "prefix_dense_sliding_window_pattern")(level, head)
    return first + every(4, FULL, SLIDING, "sliding_window_pattern")(level, depth - head)
