"""Where the result of a plan can be used: transformers, vLLM, llama.cpp, Ollama.

A checkpoint that transformers runs exactly can be wrong elsewhere, because other engines work
out per-layer facts from the layer count or assume a fixed period. What is said here follows
from the source code of the engines' loaders and converters as of 2025; none of them was run.
"""

from typing import Any, Literal

from surgeon.checkpoint import generators as g
from surgeon.checkpoint.config import rewrite_config, stack_level
from surgeon.checkpoint.encodings import INDEX_SETS, index_set
from surgeon.checkpoint.generators import Generator, Level
from surgeon.checkpoint.store import Checkpoint
from surgeon.errors import UnsupportedModel
from surgeon.plan import LayerPlan
from surgeon.record import Record

State = Literal["safe", "needs metadata", "unsafe", "unknown"]


class Deployment(Record):
    """What one engine makes of a result.

    Args:
        target: engine.
        state: `safe`; `needs metadata` beyond what its converter writes; `unsafe`; `unknown`.
        reasons: why, and what to do.
    """

    target: str
    state: State
    reasons: list[str]


# Kinds of layers that llama.cpp's loader assumes, whatever config.json says.
_ASSUMED: dict[str, tuple[str, int, Generator]] = {
    "gemma2": ("layer_types", 2, g.every(2, g.FULL, g.SLIDING)),
    "gemma3_text": ("layer_types", 6, g.every(6, g.FULL, g.SLIDING)),
    "gpt_oss": ("layer_types", 2, g.every(2, g.FULL, g.SLIDING)),
    "cohere2": ("layer_types", 4, g.every(4, g.FULL, g.SLIDING)),
    "llama4_text": ("no_rope_layers", 4, lambda level, depth: g.rope_flags({}, depth)),
    "smollm3": ("no_rope_layers", 4, lambda level, depth: g.rope_flags({}, depth)),
}
_INTERVAL = ("qwen3_next", "qwen3_5_text", "qwen3_5_moe_text")
_GGUF = frozenset(
    {
        "llama", "mistral", "ministral3", "gemma", "gemma2", "gemma3_text", "phi", "phi3",
        "stablelm", "starcoder2", "olmo", "olmo2", "olmo3", "cohere", "cohere2", "granite", "glm4",
        "qwen2", "qwen3", "qwen2_moe", "qwen3_moe", "qwen3_next", "qwen3_5_text", "mixtral",
        "olmoe", "phimoe", "granitemoe", "deepseek_v2", "deepseek_v3", "glm4_moe", "exaone4",
        "smollm3", "gpt_oss", "gpt2", "gptj", "bloom", "falcon", "mpt", "dbrx", "gpt_neox",
        "nemotron", "apertus", "seed_oss", "arcee", "bitnet", "ernie4_5", "hunyuan_v1_dense",
        "internlm3", "llama4_text", "lfm2", "granitemoehybrid", "nemotron_h", "falcon_h1", "jamba",
    }
)  # fmt: skip
_OLLAMA = frozenset(
    {
        "llama", "mistral", "mixtral", "gemma", "gemma2", "gemma3_text", "phi3", "qwen2", "qwen3",
        "cohere", "gpt_oss",
    }
)  # fmt: skip
_SPECIAL_DEPTHS = {"gemma2": 46, "gemma3_text": 62}


def deployment_report(checkpoint: Checkpoint, plan: LayerPlan) -> list[Deployment]:
    """One entry per engine for the result of `plan`.

    Args:
        checkpoint: the source.
        plan: for its depth.
    """
    try:
        after = rewrite_config(checkpoint.config, plan, prefix=checkpoint.stack.prefix)
    except UnsupportedModel as error:
        reason = [str(error)]
        return [
            Deployment(target=target, state="unsafe", reasons=reason)
            for target in ("transformers", "vLLM", "llama.cpp", "Ollama")
        ]
    level = stack_level(after)
    gguf = _judge("llama.cpp", _llama_cpp(checkpoint, plan, level))
    return [
        _judge("transformers", _transformers(checkpoint)),
        _judge("vLLM", _vllm(checkpoint, plan, level)),
        gguf,
        _ollama(checkpoint, gguf),
    ]


Finding = tuple[State, str]
_ORDER: tuple[State, ...] = ("safe", "unknown", "needs metadata", "unsafe")


def _judge(target: str, findings: list[Finding]) -> Deployment:
    """The worst finding decides."""
    state = max((state for state, _ in findings), key=_ORDER.index, default="safe")
    return Deployment(target=target, state=state, reasons=[reason for _, reason in findings])


def _transformers(checkpoint: Checkpoint) -> list[Finding]:
    found: list[Finding] = []
    if checkpoint.stack.extra:
        found.append(
            ("safe", "prediction layers move behind the new last layer and load as unused keys")
        )
    if checkpoint.family.verdict == "unknown":
        found.append(("unknown", "the family is not in the table; `duplicate` verifies it"))
    return found


def _thresholds_hold(checkpoint: Checkpoint, plan: LayerPlan) -> bool:
    """Whether "the first k layers are dense" still describes the result."""
    first = checkpoint.level.get("first_k_dense_replace")
    if type(first) is not int:
        return True
    dense = [layer < first for layer in plan.layers]
    return all(dense[: sum(dense)])


def _vllm(checkpoint: Checkpoint, plan: LayerPlan, level: Level) -> list[Finding]:
    found: list[Finding] = []
    added = [key for key in ("layer_types", "mlp_layer_types") if _is_new(checkpoint, level, key)]
    if "layer_types" in added:
        found.append(
            ("safe", "needs a version that reads `layer_types` (from mid-2025; before, windows "
             "were worked out from the layer number)")
        )  # fmt: skip
    if level.get("use_sliding_window") and level.get("max_window_layers") != len(plan):
        found.append(("unsafe", "it asserts that `max_window_layers` equals the layer count"))
    if not _thresholds_hold(checkpoint, plan):
        found.append(("unsafe", "it reads `first_k_dense_replace`, which cannot say this order"))
    if checkpoint.family.verdict == "unknown":
        found.append(("unknown", "the family is not in the table"))
    return found


def _is_new(checkpoint: Checkpoint, level: Level, key: str) -> bool:
    return level.get(key) is not None and checkpoint.level.get(key) is None


def _llama_cpp(checkpoint: Checkpoint, plan: LayerPlan, level: Level) -> list[Finding]:
    name = checkpoint.model_type
    if name not in _GGUF:
        return [("unknown", f"no converter for `{name}` was looked at")]
    found: list[Finding] = []
    if name in _ASSUMED:
        key, period, generator = _ASSUMED[name]
        if _stated(checkpoint, key, plan) != generator({}, len(plan)):
            found.append(
                ("unsafe", f"its loader assumes `{key}` with period {period} and the result breaks "
                 f"it; repeat a number of layers that is a multiple of {period}")
            )  # fmt: skip
    if name in _INTERVAL and "layer_types" in level:
        step = g.whole(checkpoint.level, "full_attention_interval", 4)
        if level["layer_types"] != g.every(step, g.FULL, g.LINEAR)({}, len(plan)):
            found.append(
                ("needs metadata", "the converter writes an interval only; set "
                 "`attention.recurrent_layers` to the layers with linear attention")
            )  # fmt: skip
    found += _count_rules(checkpoint, plan)
    if not _thresholds_hold(checkpoint, plan):
        found.append(("unsafe", "`leading_dense_block_count` cannot say this order"))
    return found


def _count_rules(checkpoint: Checkpoint, plan: LayerPlan) -> list[Finding]:
    """Facts that llama.cpp works out from the number of layers."""
    name, before, after = checkpoint.model_type, plan.depth, len(plan)
    special = _SPECIAL_DEPTHS.get(name)
    if special in (before, after) and before != after:
        return [("unsafe", f"{special} layers select the attention scale of the 27B model")]
    if name == "deepseek_v2" and before != after:
        lite = {26, 27}
        if before in lite or after in lite:
            return [("unsafe", "26 or 27 layers mean the Lite model, which has no `q_lora_rank`")]
    return []


def _stated(checkpoint: Checkpoint, key: str, plan: LayerPlan) -> list[Any]:
    """A per-layer list of the source, derived if need be, under the plan."""
    source = checkpoint.level.get(key)
    if source is None:
        source = checkpoint.family.derived[key](checkpoint.level, plan.depth)
    if key in INDEX_SETS:
        return index_set(source, plan, INDEX_SETS[key], key)
    return plan.apply(source[: plan.depth])


def _ollama(checkpoint: Checkpoint, gguf: Deployment) -> Deployment:
    """Its own converters for some families, else GGUF; the loader is llama.cpp's either way."""
    way = "imports the folder" if checkpoint.model_type in _OLLAMA else "import a GGUF file"
    return Deployment(target="Ollama", state=gguf.state, reasons=[way, *gguf.reasons])
