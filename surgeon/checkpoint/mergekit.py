"""Layer plans as mergekit passthrough YAML, in and out.

mergekit writes a self-merge as a list of slices, each with one source and a half-open
`layer_range`. Such a file is exactly a layer plan; anything else a mergekit file can say
(other methods, several models, weights, scaling) is refused instead of being left out.
"""

from pathlib import Path
from typing import Any, ClassVar

import yaml

from surgeon.errors import OutputExists, SurgeonError, UsageError
from surgeon.plan import LayerPlan
from surgeon.record import Record

_KEYS = {"slices", "merge_method", "dtype", "tokenizer_source", "base_model", "name"}


def from_mergekit(text: str, depth: int) -> LayerPlan:
    """The layer plan a passthrough file describes.

    Args:
        text: YAML.
        depth: decoder layers of the model.

    Raises:
        UsageError: not YAML, not a passthrough of one model, or a range that does not fit.
    """
    try:
        body = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise UsageError(f"not a YAML file: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(body, dict) or body.get("merge_method") != "passthrough":
        raise UsageError("not a mergekit file with `merge_method: passthrough`")
    extra = sorted(map(str, body.keys() - _KEYS))
    if extra:
        raise UsageError(f"mergekit key `{extra[0]}` cannot be expressed as a layer plan")
    slices = body.get("slices")
    if not isinstance(slices, list) or not slices:
        raise UsageError("the mergekit file has no `slices`")
    sources = [_source(item, at) for at, item in enumerate(slices)]
    models = {str(source["model"]) for source in sources}
    if len(models) > 1:
        raise UsageError(f"the mergekit file joins several models: {', '.join(sorted(models))}")
    layers = [layer for source in sources for layer in _layers(source["layer_range"], depth)]
    return LayerPlan(depth, tuple(layers))


def _source(item: Any, at: int) -> dict[str, Any]:
    """The one source of a slice."""
    sources = item.get("sources") if isinstance(item, dict) else None
    if not isinstance(sources, list) or len(sources) != 1 or not isinstance(sources[0], dict):
        raise UsageError(f"slice {at} of the mergekit file does not have exactly one source")
    extra = (item.keys() | sources[0].keys()) - {"sources", "model", "layer_range"}
    if extra:
        name = sorted(map(str, extra))[0]
        raise UsageError(f"slice {at}: `{name}` cannot be expressed as a layer plan")
    if "model" not in sources[0] or "layer_range" not in sources[0]:
        raise UsageError(f"slice {at} of the mergekit file lacks `model` or `layer_range`")
    return sources[0]


def _layers(value: Any, depth: int) -> range:
    """A `layer_range`: two whole numbers, half-open."""
    if not isinstance(value, list) or len(value) != 2 or not all(type(v) is int for v in value):
        raise UsageError(f"layer_range {value!r} is not two whole numbers")
    start, stop = value
    if not 0 <= start < stop <= depth:
        raise UsageError(f"layer_range {value} does not fit a model of {depth} layers")
    return range(start, stop)


def to_mergekit(plan: LayerPlan, model: str, dtype: str | None = None) -> str:
    """The plan as a passthrough file for mergekit.

    Args:
        plan: which source layer runs at each position.
        model: what mergekit shall load: a folder or `owner/name`.
        dtype: of the result; None leaves mergekit its own choice.
    """
    slices = [
        {"sources": [{"model": model, "layer_range": [run.start, run.stop]}]} for run in plan.runs()
    ]
    body: dict[str, Any] = {"slices": slices, "merge_method": "passthrough"}
    if dtype:
        body["dtype"] = dtype
    return yaml.safe_dump(body, sort_keys=False, allow_unicode=True)


class MergekitFile(Record):
    """A written passthrough file.

    Args:
        path: where it is.
        plan: what it says.
        text: its content.
    """

    SCHEMA: ClassVar[str] = "surgeon.mergekit/1"

    path: str
    plan: LayerPlan
    text: str


def write_mergekit(
    plan: LayerPlan, model: str, path: Path, *, force: bool = False, dry_run: bool = False
) -> MergekitFile:
    """Write the plan as a passthrough file.

    Args:
        plan: which source layer runs at each position.
        model: what mergekit shall load.
        path: the YAML file to make.
        force: replace an existing file.
        dry_run: write nothing.

    Raises:
        OutputExists: the file is there and `force` was not given.
        SurgeonError: it cannot be written.
    """
    if path.exists() and not (force and path.is_file()):
        raise OutputExists(f"OUT `{path}` exists", hint="choose another path, or give --force")
    text = to_mergekit(plan, model)
    if not dry_run:
        try:
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise SurgeonError(f"cannot write `{path}`: {error.strerror}") from error
    return MergekitFile(path=str(path), plan=plan, text=text)
