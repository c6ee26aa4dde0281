"""`surgeon.json`: what a checkpoint is made of, and how to make it again."""

import json
import platform
from pathlib import Path
from typing import Any, ClassVar, Self

from surgeon.checkpoint.strict_json import parse_object
from surgeon.errors import SurgeonError, UsageError
from surgeon.plan import LayerPlan
from surgeon.record import Record
from surgeon.version import __version__

MANIFEST_NAME = "surgeon.json"
MAX_MANIFEST = 256_000_000  # bytes


class Source(Record):
    """The checkpoint a result was made from.

    Args:
        id: `owner/name`, or the name of the folder.
        revision: commit of the repository, or None for a folder.
        files: file name to size and digest, as `Checkpoint.identity` gives it.
    """

    id: str
    revision: str | None
    files: dict[str, dict[str, Any]]


class File(Record):
    """One written file.

    Args:
        name: in the folder.
        size: in bytes.
        digest: `blake3:<hex>`; null where the bytes were cloned or linked and never read.
    """

    name: str
    size: int
    digest: str | None


class Edit(Record):
    """One change in config.json; null stands for an absent key."""

    key: str
    before: Any
    after: Any


class Manifest(Record):
    """Everything needed to say what a checkpoint is and to rebuild it.

    Args:
        source: what it was made from.
        plan: which source layer runs at each position.
        mtp_dropped: whether multi-token-prediction tensors were left behind, here or earlier.
        root: where the source was itself made by this tool, the model at the beginning.
        root_plan: the plan from that model to this one.
        edits: what changed in config.json.
        files: every written file but the manifest.
        tensors: source tensor name to digest of its bytes; empty where they were not read.
        carried: other files that travelled.
        left: other files of the source that did not.
        checks: what was verified before publication, in words.
        rebuild: the command that makes it again.
        versions: of what made it.

    Example:
        >>> import json, surgeon
        >>> from pathlib import Path
        >>> text = Path("runs/demo/model/surgeon.json").read_text()
        >>> made = surgeon.Manifest.from_dict(json.loads(text))
        >>> made.source.id, made.plan.depth
        ('planted', 12)
    """

    SCHEMA: ClassVar[str] = "surgeon.manifest/2"

    source: Source
    plan: LayerPlan
    mtp_dropped: bool = False
    root: Source | None = None
    root_plan: LayerPlan | None = None
    edits: list[Edit]
    files: list[File]
    tensors: dict[str, str]
    carried: list[str]
    left: list[str]
    checks: list[str]
    rebuild: str
    versions: dict[str, str]

    @classmethod
    def from_dict(cls, data: Any) -> Self:
        """The manifest that `to_dict` came from, of this schema or the first.

        Raises:
            UsageError: not a JSON object, another schema tag, or fields that do not fit.
        """
        return super().from_dict(_upgraded(data))

    @property
    def total_bytes(self) -> int:
        """Bytes of all written files."""
        return sum(file.size for file in self.files)


def _upgraded(data: Any) -> Any:
    """A manifest of the first schema, which had sha256 digests without a name, as of now."""
    if not isinstance(data, dict) or data.get("schema") != "surgeon.manifest/1":
        return data
    try:
        files = [
            {"name": file["name"], "size": file["size"], "digest": _sha256(file["sha256"])}
            for file in data["files"]
        ]
        tensors = {name: _sha256(value) for name, value in data["tensors"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"surgeon.manifest/1: `files` or `tensors` do not fit: {error}") from error
    return data | {"schema": Manifest.SCHEMA, "files": files, "tensors": tensors}


def _sha256(value: Any) -> str | None:
    return None if value is None else f"sha256:{value}"


def versions() -> dict[str, str]:
    """Versions of what writes a checkpoint."""
    return {"surgeon": __version__, "python": platform.python_version()}


def edits(before: Any, after: Any, where: str = "") -> list[Edit]:
    """What changed between two configs, key by key."""
    if isinstance(before, dict) and isinstance(after, dict):
        keys = [*before, *(key for key in after if key not in before)]
        return [
            edit
            for key in keys
            for edit in edits(before.get(key), after.get(key), f"{where}.{key}" if where else key)
        ]
    return [] if before == after else [Edit(key=where, before=before, after=after)]


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a checkpoint this tool wrote; None where there is none.

    Raises:
        SurgeonError: it is there and cannot be read.
    """
    path = folder / MANIFEST_NAME
    if not path.is_file():
        return None
    try:
        return Manifest.from_dict(
            parse_object(path.read_bytes(), f"`{MANIFEST_NAME}`", limit=MAX_MANIFEST)
        )
    except (OSError, UsageError) as error:
        raise SurgeonError(f"`{path}` is no readable manifest: {error}") from error


def encode_json(value: Any) -> bytes:
    """JSON as model folders have it: indented by two, `Infinity` allowed."""
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=True) + "\n").encode()
