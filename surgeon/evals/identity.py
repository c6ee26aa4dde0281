"""Is a checkpoint a layer plan of another? Proven tensor by tensor, or not claimed."""

from hashlib import sha256
from pathlib import Path

from surgeon.checkpoint.config import rewrite_config
from surgeon.checkpoint.header import Header, Tensor
from surgeon.checkpoint.manifest import read_manifest
from surgeon.checkpoint.store import Checkpoint
from surgeon.errors import SurgeonError
from surgeon.plan import LayerPlan

PIECE = 2**24
"""Bytes read at a time."""

BESIDES = {"transformers_version", "_name_or_path", "torch_dtype", "dtype"}
"""Config keys that do not change what a model computes in a given dtype."""


def plan_between(base: Path, candidate: Path) -> tuple[LayerPlan | None, str]:
    """The plan that makes `candidate` from `base`, and why that is or is not known.

    The manifest says which plan to try; the proof is that the configs agree under it and
    that every tensor of the candidate holds the bytes of its source in the base. A
    manifest that claims what the bytes deny is not believed.
    """
    try:
        return _plan_between(base, candidate)
    except SurgeonError as error:
        return None, str(error)


def _plan_between(base: Path, candidate: Path) -> tuple[LayerPlan | None, str]:
    source, made = Checkpoint.open(base), Checkpoint.open(candidate)
    manifest = read_manifest(candidate)
    plan = manifest.plan if manifest else LayerPlan.identity(source.depth)
    if plan.depth != source.depth or len(plan) != made.depth:
        known = "its manifest names another base" if manifest else "it has no manifest"
        return None, f"the candidate has {made.depth} layers, the base {source.depth}; {known}"
    want = rewrite_config(source.config, plan, prefix=source.stack.prefix)
    different = _different(want, made.config)
    if different:
        return None, f"the configs differ in `{different}`"
    return _compare_tensors(source, made, plan)


def _different(left: dict[str, object], right: dict[str, object]) -> str | None:
    keys = sorted((left.keys() | right.keys()) - BESIDES)
    return next((key for key in keys if left.get(key) != right.get(key)), None)


def _compare_tensors(
    source: Checkpoint, made: Checkpoint, plan: LayerPlan
) -> tuple[LayerPlan | None, str]:
    names = {new: old for old in source.by_name for new in source.stack.renamed(old, plan)}
    if names.keys() != made.by_name.keys():
        return None, "the candidate has other tensors than the plan gives it"
    digests: dict[str, str] = {}
    homes = [{t.name: h for h in c.headers.values() for t in h.tensors} for c in (source, made)]
    for new, old in names.items():
        tensor, origin = made.by_name[new], source.by_name[old]
        if (tensor.dtype, tensor.shape) != (origin.dtype, origin.shape):
            return None, f"`{new}` has another dtype or shape than `{old}` of the base"
        if old not in digests:
            digests[old] = _digest(homes[0][old], origin)
        if _digest(homes[1][new], tensor) != digests[old]:
            return None, f"`{new}` does not hold the bytes of `{old}` of the base"
    return plan, f"its {len(names)} tensors are those of the base under {plan}, by digest"


def _digest(header: Header, tensor: Tensor) -> str:
    digest = sha256()
    with header.path.open("rb") as file:
        file.seek(header.payload + tensor.start)
        left = tensor.nbytes
        while left:
            piece = file.read(min(PIECE, left))
            if not piece:
                raise SurgeonError(f"`{header.path}` ends inside tensor `{tensor.name}`")
            digest.update(piece)
            left -= len(piece)
    return digest.hexdigest()
