"""`inspect`: what a checkpoint is and what the guards say, from headers alone."""

from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

from surgeon.checkpoint.deploy import Deployment, deployment_report
from surgeon.checkpoint.encodings import INDEX_SETS, per_layer_values
from surgeon.checkpoint.families import Verdict
from surgeon.checkpoint.guard import ParameterCount, SizeClass, count_parameters, size_class
from surgeon.checkpoint.manifest import read_manifest
from surgeon.checkpoint.store import Checkpoint
from surgeon.plan import LayerPlan
from surgeon.record import Record


class Inspection(Record):
    """What is known of a checkpoint without reading a weight.

    Args:
        id: `owner/name`, or the folder's name.
        revision: commit, or None.
        model_type: of the decoder.
        architectures: classes config.json names.
        family_verdict: what is known of the family.
        parameters: logical counts.
        size_class: `measured`, `unmeasured` or `large`.
        guard: what the size guard says, in words.
        depth: decoder layers.
        stack: prefix of the layers' tensor names.
        prediction_layers: stored behind the decoder layers.
        per_layer: lists and layer numbers that config.json states.
        tied_head: whether the output head is the embedding.
        dtypes: tensor dtype to bytes.
        nbytes: of all tensors.
        files: safetensors files.
        quantisation: method, or None.
        chat_template: whether one is there.
        made_from: where it was written by this tool, source and plan.
        plan: the plan that was asked about, or None.
        deployment: what engines make of that plan's result; None without a plan.

    Example:
        >>> import surgeon
        >>> base = surgeon.Checkpoint.open(surgeon.resolve("demo:planted").path)
        >>> found = surgeon.inspect(base, surgeon.LayerPlan.parse(":8,4:", base.depth))
        >>> found.parameters.total, found.size_class, len(found.plan)
        (2006528, 'measured', 16)
    """

    SCHEMA: ClassVar[str] = "surgeon.inspect/1"

    id: str
    revision: str | None
    model_type: str
    architectures: list[str]
    family_verdict: Verdict
    parameters: ParameterCount
    size_class: SizeClass
    guard: str
    depth: int
    stack: str
    prediction_layers: int
    per_layer: dict[str, list[Any]]
    tied_head: bool
    dtypes: dict[str, int]
    nbytes: int
    files: list[str]
    quantisation: str | None
    chat_template: bool
    made_from: str | None
    plan: LayerPlan | None = None
    deployment: list[Deployment] | None = None


def inspect(checkpoint: Checkpoint, plan: LayerPlan | None = None) -> Inspection:
    """Describe a checkpoint.

    Args:
        checkpoint: opened.
        plan: also report where the result of this plan can be deployed.

    Example:
        >>> import surgeon
        >>> base = surgeon.Checkpoint.open(surgeon.resolve("demo:planted").path)
        >>> surgeon.inspect(base).guard
        'allowed: up to 3B, where the effect was measured'
    """
    origin, count = checkpoint.origin, count_parameters(checkpoint)
    kind = size_class(count.total)
    dtypes: Counter[str] = Counter()
    for tensor in checkpoint.tensors:
        dtypes[tensor.dtype] += tensor.nbytes
    manifest = read_manifest(checkpoint.path)
    return Inspection(
        id=origin.id,
        revision=origin.revision,
        model_type=checkpoint.model_type,
        architectures=list(checkpoint.config.get("architectures") or []),
        family_verdict=checkpoint.family.verdict,
        parameters=count,
        size_class=kind,
        guard=_guard_says(kind),
        depth=checkpoint.depth,
        stack=checkpoint.stack.prefix,
        prediction_layers=checkpoint.stack.extra,
        per_layer=_per_layer(checkpoint),
        tied_head=count.tied_head,
        dtypes=dict(dtypes.most_common()),
        nbytes=checkpoint.nbytes,
        files=checkpoint.files,
        quantisation=_quantisation(checkpoint),
        chat_template=_has_chat_template(checkpoint.path),
        made_from=f"{manifest.source.id}, layers {manifest.plan}" if manifest else None,
        plan=plan,
        deployment=deployment_report(checkpoint, plan) if plan else None,
    )


def _guard_says(kind: SizeClass) -> str:
    return {
        "measured": "allowed: up to 3B, where the effect was measured",
        "unmeasured": "allowed with a warning: between 3B and 7B the effect was not measured",
        "large": "refused: 7B class (6.5e9 parameters and above), where duplication hurts",
    }[kind]


def _per_layer(checkpoint: Checkpoint) -> dict[str, list[Any]]:
    level = checkpoint.level
    found = dict(per_layer_values(level, checkpoint.depth))
    found |= {key: level[key] for key in INDEX_SETS if isinstance(level.get(key), list)}
    return found


def _quantisation(checkpoint: Checkpoint) -> str | None:
    for level in (checkpoint.config, checkpoint.level):
        settings = level.get("quantization_config")
        if isinstance(settings, dict):
            return str(settings.get("quant_method", "unnamed"))
    return None


def _has_chat_template(folder: Path) -> bool:
    if any(folder.glob("chat_template*")):
        return True
    settings = folder / "tokenizer_config.json"
    return settings.is_file() and b'"chat_template"' in settings.read_bytes()[:16_000_000]
