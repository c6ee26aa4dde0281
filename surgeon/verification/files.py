"""Files, digests and tensors of a written checkpoint, without loading a model."""

from collections.abc import Mapping

from safetensors import SafetensorError, safe_open

from surgeon.checkpoint import digest
from surgeon.checkpoint.header import Header, Tensor
from surgeon.checkpoint.manifest import MANIFEST_NAME, Manifest
from surgeon.checkpoint.store import Checkpoint
from surgeon.errors import SurgeonError
from surgeon.plan import LayerPlan


def check_files(checkpoint: Checkpoint) -> str:
    """Open every weight file with the reference parser and compare names.

    Raises:
        SurgeonError: it refuses a file, or sees other tensors.
    """
    for name, header in checkpoint.headers.items():
        try:
            with safe_open(header.path, framework="numpy") as file:
                names = set(file.keys())
        except SafetensorError as error:
            raise SurgeonError(f"the reference parser refuses `{name}`: {error}") from error
        if names != {tensor.name for tensor in header.tensors}:
            raise SurgeonError(f"the reference parser sees other tensors in `{name}`")
    return f"{len(checkpoint.headers)} weight files agree with the index and the config"


def check_digests(checkpoint: Checkpoint, manifest: Manifest) -> str:
    """Every file is there, as long as it was, and has the bytes it had.

    Raises:
        SurgeonError: a file is missing, extra, or changed.
    """
    folder = checkpoint.path
    here = {path.name for path in folder.iterdir()} - {MANIFEST_NAME}
    stated = {file.name: file for file in manifest.files}
    missing = sorted(stated.keys() - here)
    if missing:
        raise SurgeonError(f"`{missing[0]}` is in the manifest and not in the folder")
    stray = sorted(name for name in here - stated.keys() if name.endswith(".safetensors"))
    if stray:
        raise SurgeonError(f"`{stray[0]}` is in the folder and not in the manifest")
    taken = 0
    for name, file in stated.items():
        size = (folder / name).stat().st_size
        if size != file.size:
            raise SurgeonError(f"`{name}` has {size:,} bytes, the manifest says {file.size:,}")
        if file.digest is None:
            continue  # cloned: its bytes are compared with the base, tensor by tensor
        if digest.of_range(folder / name, like=file.digest) != file.digest:
            raise SurgeonError(f"`{name}` is not what was written: its digest differs")
        taken += 1
    return f"{taken} of {len(stated)} files have the digest the manifest states"


def _digest_tensor(header: Header, tensor: Tensor, like: str | None = None) -> str:
    start = header.payload + tensor.start
    return digest.of_range(header.path, start, tensor.nbytes, like=like)


def _placed(checkpoint: Checkpoint) -> dict[str, tuple[Header, Tensor]]:
    return {
        tensor.name: (header, tensor)
        for header in checkpoint.headers.values()
        for tensor in header.tensors
    }


def check_tensors(
    checkpoint: Checkpoint, plan: LayerPlan, source: Checkpoint | Mapping[str, str]
) -> str:
    """Every tensor is, byte for byte, the source tensor the plan puts there.

    Args:
        checkpoint: the result.
        plan: from the source to it.
        source: the source itself, or its tensors' digests by name.

    Raises:
        SurgeonError: a tensor is missing, extra, or has other bytes.
    """
    found = _placed(checkpoint)
    stack = checkpoint.stack
    originals = _placed(source) if isinstance(source, Checkpoint) else {}
    names = list(originals) if isinstance(source, Checkpoint) else list(source)
    # The stack's prefix and extra layers are the same in both; only the depth differs.
    before = type(stack)(stack.prefix, plan.depth, stack.extra)
    wanted = {new: old for old in names for new in before.renamed(old, plan)}
    if wanted.keys() != found.keys():
        name = sorted(wanted.keys() ^ found.keys())[0]
        state = "missing" if name in wanted else "not in the plan"
        raise SurgeonError(f"tensor `{name}` is {state}")
    digests = {} if isinstance(source, Checkpoint) else dict(source)
    for new, old in wanted.items():
        if old not in digests:
            header, tensor = originals[old]
            digests[old] = _digest_tensor(header, tensor)
        header, tensor = found[new]
        if old in originals and (tensor.dtype, tensor.shape) != originals[old][1][1:3]:
            raise SurgeonError(f"tensor `{new}` has another dtype or shape than `{old}`")
        if _digest_tensor(header, tensor, digests[old]) != digests[old]:
            raise SurgeonError(f"tensor `{new}` does not have the bytes of `{old}`")
    return f"{len(wanted)} tensors have the bytes of {len(digests)} source tensors"
