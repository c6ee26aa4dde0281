"""What is known about each model family: how its config speaks of single layers.

A family that is not listed is handled by the general rules of `config.py` and then depends
on the structural verifier alone. A listed family says which lists its class derives, which
thresholds it reads, which plans it cannot represent, and whether it is refused outright.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from surgeon.checkpoint import generators as g
from surgeon.checkpoint.generators import Generator, Level
from surgeon.errors import UnsupportedModel
from surgeon.plan import LayerPlan

Verdict = Literal["sound", "rewrite", "conditional", "refused", "unknown"]
Condition = Callable[[Level, LayerPlan], str | None]


@dataclass(frozen=True)
class Family:
    """One family.

    Args:
        verdict: `sound` with the layer count alone, `rewrite` with per-layer entries edited,
            `conditional` sound for some plans, `refused`, `unknown` for a type not listed.
        derived: lists the configuration class makes when config.json does not state them.
        thresholds: keys that mean "the first k layers", with their class default.
        overruled: threshold keys that the class ignores once a list states the same.
        condition: the reason a plan is refused, or None if it is representable.
        reason: why the family is refused.
        stored: tensor name endings that must be in the file, because the model's own code
            would compute other values for them at another position.
    """

    verdict: Verdict = "sound"
    derived: Mapping[str, Generator] = field(default_factory=dict)
    thresholds: Mapping[str, int] = field(default_factory=dict)
    overruled: frozenset[str] = frozenset()
    condition: Condition | None = None
    reason: str = ""
    stored: tuple[str, ...] = ()


def _once_at(position: int, what: str) -> Condition:
    """The first (0) or last (-1) layer must stay alone at its end of the stack."""

    def condition(level: Level, plan: LayerPlan) -> str | None:
        layer = position % plan.depth
        if plan.positions(layer) == [position % len(plan)]:
            return None
        return f"layer {layer} {what}, so it must run once, at its own end of the stack"

    return condition


def _no_inverse_scaling(level: Level, plan: LayerPlan) -> str | None:
    if level.get("scale_attn_by_inverse_layer_idx"):
        return "`scale_attn_by_inverse_layer_idx` divides attention by the layer number"
    return None


def _gemma4(level: Level, plan: LayerPlan) -> str | None:
    if level.get("num_kv_shared_layers"):
        return "its last layers reuse the keys and values of a layer found by position"
    if level.get("hidden_size_per_layer_input", 256):
        return "its per-layer embeddings are one table packed by layer count"
    if plan.layers[-1] != plan.depth - 1:
        return "its last layer must stay last"
    return None


_EXPERT_HEAD = {"mlp_layer_types": g.first_then(1, "dense", "sparse")}
_EXPERTS_AFTER_K = {"mlp_layer_types": g.first_then(3, "dense", "sparse", "first_k_dense_replace")}
_SWA = {"layer_types": g.window_after_threshold}
_SOUND = (
    "llama mistral ministral3 gemma phi phi3 stablelm starcoder2 olmo olmo2 cohere granite glm "
    "glm4 ernie4_5 hunyuan_v1_dense apertus seed_oss arcee helium nemotron bitnet youtu nanochat "
    "jais2 persimmon hyperclovax doge aria_text internlm3 iquestcoder gptj codegen openai-gpt "
    "ctrl gpt_bigcode bloom falcon mpt dbrx gpt_neox opt biogpt xglm cpmant mixtral olmoe "
    "flex_olmo phimoe granitemoe granitemoeshared jetmoe minimax_m2 solar_open longcat_flash "
    "falcon_h1"
)
_ENCODERS = (
    "bert bert-generation big_bird camembert data2vec-text electra ernie megatron-bert rembert "
    "roberta roberta-prelayernorm roc_bert roformer xlm xlm-roberta xlm-roberta-xl xmod"
)
_SEQUENCE_TO_SEQUENCE = (
    "bart bigbird_pegasus blenderbot blenderbot-small marian mbart mvp pegasus plbart prophetnet "
    "trocr whisper t5 mt5 umt5 longt5 moshi musicgen musicgen_melody"
)


def _refused(reason: str) -> Family:
    return Family("refused", reason=reason)


_REFUSED = {
    "diffllama": "its attention weighs heads by a function of the layer number",
    "beam": "its residual weights are a function of the layer number",
    "zamba": "one transformer block is shared by several layers",
    "zamba2": "one transformer block is shared by several layers",
    "gemma3n": "its last layers reuse keys and values found by position",
    "gemma3n_text": "its last layers reuse keys and values found by position",
    "hrm_text": "it has two recurrent stacks",
    "inkling": "its residual blocks depend on the layer number",
    "inkling_text": "its residual blocks depend on the layer number",
    "inkling2": "it keeps per-layer residual queries outside the stack",
    "inkling2_text": "it keeps per-layer residual queries outside the stack",
    "mamba": "it has no attention layers, so the evidence for duplication does not cover it",
    "mamba2": "it has no attention layers, so the evidence for duplication does not cover it",
    "falcon_mamba": "it has no attention layers, so the evidence for duplication does not cover it",
    "rwkv": "it has no attention layers, so the evidence for duplication does not cover it",
    "xlstm": "it has no attention layers, so the evidence for duplication does not cover it",
    "blt": "it has several stacks that depend on each other",
    "deepseek_v4": "layers found by number hash their experts",
    "dots3_note": "it has not been tested layer by layer",
    "dots3_note_text": "it has not been tested layer by layer",
    "qwen4_exp": "it has not been tested layer by layer",
    "qwen4_exp_text": "it has not been tested layer by layer",
    "gemma4_assistant": "it drafts for another model, whose layers it addresses",
    "gemma4_unified_assistant": "it drafts for another model, whose layers it addresses",
    "bailing_hybrid": "its linear attention decays by a function of the layer number",
    "minimax_m3": "it has not been tested layer by layer",
    "minimax_m3_vl_text": "it has not been tested layer by layer",
    "reformer": "its layers are reversible pairs",
    "xlnet": "it is not a causal decoder",
    "mllama": "its cross-attention layers are addressed by number from the image tower",
}  # fmt: skip

FAMILIES: dict[str, Family] = {
    **{name: Family() for name in _SOUND.split()},
    **{name: _refused("it is an encoder, not a causal decoder") for name in _ENCODERS.split()},
    **{
        name: _refused("it is not a decoder-only language model")
        for name in _SEQUENCE_TO_SEQUENCE.split()
    },
    **{name: _refused(reason) for name, reason in _REFUSED.items()},
    # Sliding windows and positions
    "qwen2": Family("rewrite", _SWA, {"max_window_layers": 28}, frozenset({"max_window_layers"})),
    "qwen3": Family("rewrite", _SWA, {"max_window_layers": 28}, frozenset({"max_window_layers"})),
    "ministral": Family("rewrite", {"layer_types": g.constant(g.SLIDING)}),
    "gemma2": Family("rewrite", {"layer_types": g.every(2, g.FULL, g.SLIDING)}),
    "vaultgemma": Family("rewrite", {"layer_types": g.every(2, g.FULL, g.SLIDING)}),
    "gpt_oss": Family("rewrite", {"layer_types": g.every(2, g.FULL, g.SLIDING)}),
    "gemma3_text": Family(
        "rewrite", {"layer_types": g.every(6, g.FULL, g.SLIDING, "sliding_window_pattern")}
    ),
    "cohere2": Family(
        "rewrite", {"layer_types": g.every(4, g.FULL, g.SLIDING, "sliding_window_pattern")}
    ),
    "olmo3": Family("rewrite", {"layer_types": g.every(4, g.FULL, g.SLIDING)}),
    "cwm": Family("rewrite", {"layer_types": g.every(4, g.FULL, g.SLIDING, first=True)}),
    "kolibri1": Family("rewrite", {"layer_types": g.every(5, g.FULL, g.SLIDING)}),
    "exaone4": Family("rewrite", {"layer_types": g.exaone_pattern}),
    "smollm3": Family(
        "rewrite", {"no_rope_layers": g.rope_flags, "layer_types": g.smollm3_windows}
    ),
    "granite_swa": Family(
        "rewrite",
        {"layer_types": g.every(4, g.FULL, g.SLIDING, first=True)},
    ),
    "granitemoe_swa": Family(
        "rewrite",
        {"layer_types": g.every(4, g.FULL, g.SLIDING, first=True)},
    ),
    "modernbert-decoder": Family(
        "conditional",
        {"layer_types": g.every(3, g.FULL, g.SLIDING, "global_attn_every_n_layers", first=True)},
        condition=_once_at(0, "has no attention norm"),
    ),
    "gemma4_text": Family(
        "conditional", {"layer_types": g.every(6, g.FULL, g.SLIDING)}, condition=_gemma4
    ),
    "llama4_text": Family(
        "rewrite",
        {
            "no_rope_layers": g.rope_flags,
            "layer_types": g.llama4_chunks,
            "moe_layers": g.llama4_experts,
        },
    ),
    # Single layers that differ
    "gpt2": Family("conditional", condition=_no_inverse_scaling),
    "gpt_neox_japanese": Family(
        "conditional", condition=_once_at(-1, "alone has an attention bias")
    ),
    "gpt_neo": Family("rewrite"),
    "minicpm3": Family("rewrite"),
    "zaya": Family(
        "conditional",
        {"layer_types": g.constant("hybrid")},
        condition=_once_at(0, "has a router of its own kind"),
    ),
    # Experts
    "qwen2_moe": Family(
        "rewrite",
        {"layer_types": g.window_alternating},
        {"max_window_layers": 28},
        frozenset({"max_window_layers"}),
    ),
    "qwen3_moe": Family("rewrite"),
    "flint": Family(
        "rewrite", {"layer_types": g.flint_windows, "mlp_only_layers": lambda level, depth: [0, 1]}
    ),
    "hunyuan_v1_moe": Family("rewrite"),
    "deepseek_v2": Family("conditional", thresholds={"first_k_dense_replace": 0}),
    "deepseek_v3": Family("conditional", thresholds={"first_k_dense_replace": 3}),
    "glm4_moe": Family("conditional", thresholds={"first_k_dense_replace": 1}),
    "dots1": Family(
        "conditional",
        {"layer_types": g.dots1_windows},
        {"first_k_dense_replace": 0, "max_window_layers": 62},
        frozenset({"max_window_layers"}),
    ),
    "deepseek_v32": Family(
        "rewrite",
        {**_EXPERTS_AFTER_K, "layer_types": g.constant("indexed_attention")},
        {"first_k_dense_replace": 3},
        frozenset({"first_k_dense_replace"}),
    ),
    "glm_moe_dsa": Family(
        "rewrite",
        {
            **_EXPERTS_AFTER_K,
            "layer_types": g.constant("indexed_attention"),
            "indexer_types": g.indexer_kinds,
        },
        {"first_k_dense_replace": 3},
        frozenset({"first_k_dense_replace"}),
    ),
    "axk1": Family(
        "rewrite",
        {"mlp_layer_types": g.sparse_by_frequency},
        {"first_k_dense_replace": 1},
        frozenset({"first_k_dense_replace"}),
    ),
    "axk2": Family(
        "rewrite",
        {
            "mlp_layer_types": g.sparse_by_frequency,
            "layer_types": g.constant("indexed_attention"),
        },
        {"first_k_dense_replace": 1},
        frozenset({"first_k_dense_replace"}),
    ),
    "glm4_moe_lite": Family("rewrite", _EXPERT_HEAD),
    "hy_v3": Family("rewrite", _EXPERT_HEAD),
    "mimo_v2_flash": Family("rewrite", {"layer_types": g.mimo_windows, **_EXPERT_HEAD}),
    "mellum": Family(
        "rewrite",
        {"layer_types": g.constant(g.FULL), "mlp_layer_types": g.constant("sparse")},
    ),
    "exaone_moe": Family(
        "rewrite",
        {
            "layer_types": g.exaone_pattern,
            "mlp_layer_types": g.first_then(1, "dense", "sparse", "first_k_dense_replace"),
        },
        {"first_k_dense_replace": 1},
        frozenset({"first_k_dense_replace"}),
    ),
    "cohere2_moe": Family(
        "rewrite",
        {
            "layer_types": g.cohere2_moe_windows,
            "mlp_layer_types": g.first_then(0, "dense", "sparse", "first_k_dense_replace"),
        },
        {"first_k_dense_replace": 0},
        frozenset({"first_k_dense_replace"}),
    ),
    "afmoe": Family(
        "conditional",
        {"layer_types": g.every(4, g.FULL, g.SLIDING, "global_attn_every_n_layers")},
        {"num_dense_layers": 1},
    ),
    "laguna": Family("rewrite", {"layer_types": g.constant(g.FULL), **_EXPERT_HEAD}),
    "ernie4_5_moe": Family("conditional"),
    "llama4": Family("rewrite"),
    # Linear attention, convolutions, state spaces beside attention
    "lfm2": Family("rewrite", {"layer_types": g.lfm2_kinds}),
    "lfm2_moe": Family("conditional", thresholds={"num_dense_layers": 2}),
    "lfm3": Family("rewrite", {"layer_types": g.lfm3_kinds}),
    "qwen3_next": Family(
        "rewrite",
        {"layer_types": g.every(4, g.FULL, g.LINEAR, "full_attention_interval")},
    ),
    "qwen3_5_text": Family(
        "rewrite", {"layer_types": g.every(4, g.FULL, g.LINEAR, "full_attention_interval")}
    ),
    "qwen3_5_moe_text": Family(
        "rewrite", {"layer_types": g.every(4, g.FULL, g.LINEAR, "full_attention_interval")}
    ),
    "olmo_hybrid": Family("rewrite", {"layer_types": g.olmo_hybrid_kinds}),
    "granitemoehybrid": Family("rewrite", {"layer_types": g.constant(g.LINEAR)}),
    "kimi_linear": Family(
        "rewrite",
        {
            "layer_types": g.kimi_attention,
            "mlp_layer_types": g.first_then(1, "dense", "sparse", "first_k_dense_replace"),
        },
        {"first_k_dense_replace": 1},
        frozenset({"first_k_dense_replace"}),
    ),
    "bamba": Family("rewrite"),
    "nemotron_h": Family("rewrite"),
    "recurrent_gemma": Family("rewrite"),
    "jamba": Family("conditional"),
    "minimax": Family(
        "conditional",
        {"layer_types": g.every(2, g.LINEAR, g.FULL)},
        stored=("slope_rate", "query_decay", "key_decay", "diagonal_decay"),
    ),
}

UNKNOWN = Family("unknown")


def family_of(model_type: str) -> Family:
    """What is known about a model type; `UNKNOWN` if nothing is."""
    return FAMILIES.get(model_type, UNKNOWN)


def require_supported(model_type: str) -> Family:
    """The family, unless it is refused.

    Raises:
        UnsupportedModel: the family is on the refused list.
    """
    family = family_of(model_type)
    if family.verdict == "refused":
        raise UnsupportedModel(f"model type `{model_type}` is refused: {family.reason}")
    return family
