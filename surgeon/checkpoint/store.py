"""`Checkpoint`: a model folder, read strictly and judged from headers alone.

Opening reads config.json, the index and every safetensors header, and checks that they agree.
No weight is read, nothing is unpickled, no code of the repository is run. A snapshot folder
of the Hugging Face cache, whose files are links into a blob store, is an ordinary folder here:
file names are judged as text, then whatever regular file they lead to is opened.
"""

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from surgeon.checkpoint.config import (
    extra_layers,
    layer_count,
    model_type_of,
    refuse_unsupported,
    stack_level,
    without_prediction,
)
from surgeon.checkpoint.families import Family
from surgeon.checkpoint.header import Header, Tensor, read_header
from surgeon.checkpoint.index import INDEX_NAME, MAX_INDEX, SINGLE_NAME, parse_index
from surgeon.checkpoint.stack import Stack, find_stack
from surgeon.checkpoint.strict_json import check_depth, parse_object, shown
from surgeon.errors import SurgeonError, UnsafeCheckpoint, UnsupportedModel

MAX_CONFIG = 16_000_000  # bytes
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
Stamp = tuple[int, int, int, int]
_SNAPSHOT = re.compile(r"models--(?P<owner>[^/]+?)--(?P<name>[^/]+)/snapshots/(?P<revision>\w+)$")


@dataclass(frozen=True)
class Origin:
    """Where a checkpoint came from: `owner/name` and revision, or a folder's name."""

    id: str
    revision: str | None


@dataclass(frozen=True)
class Checkpoint:
    """A model folder whose files agree with each other.

    Args:
        path: the folder.
        config: config.json as parsed.
        headers: file name to header, in the order of the file names.
        stack: where the decoder layers are.
        family: what is known about the model's family.
        opened: stamps of the files when they were read.

    Example:
        >>> import surgeon
        >>> base = surgeon.Checkpoint.open(surgeon.resolve("demo:planted").path)
        >>> base.model_type, base.depth
        ('llama', 12)
    """

    path: Path
    config: dict[str, Any]
    headers: Mapping[str, Header]
    stack: Stack
    family: Family
    opened: Mapping[str, Stamp]

    @classmethod
    def open(cls, path: Path | str) -> "Checkpoint":
        """Read and judge a model folder.

        Raises:
            SurgeonError: there is no such folder, or it holds no model.
            UnsafeCheckpoint: pickled, malformed or hostile files.
            UnsupportedModel: the family is refused, or no decoder stack can be found.
        """
        path = Path(path)
        if not path.is_dir():
            raise SurgeonError(f"no model folder at `{path}`")
        config = read_config(path)
        family = refuse_unsupported(config)
        headers = read_headers(path, config)
        names = [tensor.name for header in headers.values() for tensor in header.tensors]
        stack = find_stack(names, layer_count(config), extra_layers(config))
        _require_stored(family, stack, names)
        opened = {name: stamp(path / name) for name in ("config.json", *headers)}
        return cls(path, config, headers, stack, family, opened)

    def without_prediction(self) -> "Checkpoint":
        """The same checkpoint as if it had no multi-token-prediction (MTP) tensors."""
        headers = {
            name: replace(
                header,
                tensors=tuple(t for t in header.tensors if not self.stack.is_prediction(t.name)),
            )
            for name, header in self.headers.items()
        }
        config, stack = without_prediction(self.config), replace(self.stack, extra=0)
        return replace(self, config=config, headers=headers, stack=stack)

    @property
    def depth(self) -> int:
        """Decoder layers."""
        return self.stack.depth

    @property
    def model_type(self) -> str:
        """Model type of the decoder."""
        return model_type_of(self.config)

    @property
    def level(self) -> dict[str, Any]:
        """The config level that owns the decoder stack."""
        return stack_level(self.config)

    @property
    def files(self) -> list[str]:
        """Names of the safetensors files, in order."""
        return list(self.headers)

    @property
    def tensors(self) -> Iterator[Tensor]:
        """Every tensor, file by file, in payload order."""
        return (tensor for header in self.headers.values() for tensor in header.tensors)

    @cached_property
    def by_name(self) -> dict[str, Tensor]:
        """Tensor name to tensor."""
        return {tensor.name: tensor for tensor in self.tensors}

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors)

    @property
    def is_quantised(self) -> bool:
        """Whether config.json states a quantisation method."""
        return any("quantization_config" in level for level in (self.config, self.level))

    @property
    def origin(self) -> Origin:
        """Model id and revision if the folder is a cache snapshot, else the folder's name."""
        absolute = Path(os.path.abspath(self.path))
        found = _SNAPSHOT.search(absolute.as_posix())
        if found:
            return Origin(f"{found['owner']}/{found['name']}", found["revision"])
        return Origin(absolute.name, None)

    def identity(self) -> dict[str, dict[str, Any]]:
        """What the weights and the config are, cheaply, independent of where they lie.

        Returns:
            File name to `size` and one of: `sha256` of the whole file (config.json, and files
            of a cache snapshot, whose blob is named by it), or `header_sha256` with
            `modified` (nanoseconds) for other files.
        """
        found = {"config.json": _whole(self.path / "config.json")}
        for name, header in self.headers.items():
            blob = (self.path / name).resolve().name
            if re.fullmatch(r"[0-9a-f]{64}", blob):
                found[name] = {"size": header.size, "sha256": blob}
                continue
            with header.path.open("rb") as file:
                digest = hashlib.sha256(file.read(header.payload)).hexdigest()
            modified = header.path.stat().st_mtime_ns
            found[name] = {"size": header.size, "header_sha256": digest, "modified": modified}
        return found

    def stamps(self) -> dict[str, Stamp]:
        """Stamps of the same files now."""
        return {name: stamp(self.path / name) for name in self.opened}


def _whole(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def stamp(path: Path) -> Stamp:
    """Device, inode, size in bytes and modification time in nanoseconds of a file.

    Raises:
        SurgeonError: it is gone.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise SurgeonError(f"`{path}` is gone: {error.strerror}") from error
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def read_small(path: Path, limit: int) -> bytes:
    """A whole regular file of at most `limit` bytes.

    Raises:
        SurgeonError: it cannot be read.
        UnsafeCheckpoint: it is larger, or no regular file.
    """
    try:
        if not path.is_file():
            raise UnsafeCheckpoint(f"`{path.name}` is not a regular file")
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > limit:
                raise UnsafeCheckpoint(f"`{path.name}` has {size:,} bytes, the limit is {limit:,}")
            return file.read(size)
    except OSError as error:
        raise SurgeonError(f"cannot read `{path}`: {error.strerror}") from error


def read_config(path: Path) -> dict[str, Any]:
    """config.json of a model folder, read strictly.

    Raises:
        SurgeonError: there is none.
        UnsupportedModel: the folder holds an adapter, not a model.
        UnsafeCheckpoint: it is malformed.
    """
    file = path / "config.json"
    if not file.exists():
        if (path / "adapter_config.json").exists():
            raise UnsupportedModel(
                f"`{path}` holds an adapter, not a model",
                hint="merge the adapter into its base model and save that first",
            )
        raise SurgeonError(
            f"`{path}` is not a model folder: it has no config.json",
            hint="give a folder with config.json and *.safetensors, or a model id",
        )
    raw = read_small(file, MAX_CONFIG)
    config = parse_object(raw, "`config.json`", limit=MAX_CONFIG, infinity=True)
    check_depth(config, "`config.json`")
    return config


def read_headers(path: Path, config: dict[str, Any]) -> dict[str, Header]:
    """File name to header, with the index and the headers in agreement.

    Raises:
        SurgeonError: there are no weights, or a listed file is missing.
        UnsafeCheckpoint: pickled weights only, or anything malformed.
    """
    single, index = path / SINGLE_NAME, path / INDEX_NAME
    other = config.get("transformers_weights")
    if other not in (None, SINGLE_NAME):
        raise UnsafeCheckpoint(f"config.json points to other weights: {shown(str(other))}")
    weight_map = None
    if index.exists():
        weight_map = parse_index(read_small(index, MAX_INDEX))
        if single.exists() and set(weight_map.values()) != {SINGLE_NAME}:
            raise UnsafeCheckpoint(
                f"both `{SINGLE_NAME}` and an index of other files are there, and loaders "
                "disagree about which one counts",
                hint="remove the one that is stale",
            )
    elif not single.exists():
        raise _no_weights(path)
    files = sorted(set(weight_map.values())) if weight_map else [SINGLE_NAME]
    for name in files:
        if not (path / name).exists():
            raise SurgeonError(f"`{path / name}` is missing, but the index lists it")
    headers = {name: read_header(path / name) for name in files}
    _check_agreement(headers, weight_map)
    return headers


def _no_weights(path: Path) -> SurgeonError:
    if any(next(path.glob(pattern), None) for pattern in _PICKLES):
        return UnsafeCheckpoint(
            f"`{path}` has pickled weights only; they can run code and are never opened",
            hint="convert the model to safetensors, or use a revision that has them",
        )
    named = sorted(path.glob("*.safetensors"))
    if named:
        return UnsafeCheckpoint(
            f"`{path}` has `{named[0].name}`, but neither `{SINGLE_NAME}` nor `{INDEX_NAME}`"
        )
    return SurgeonError(f"`{path}` has no weights: no *.safetensors file")


def _check_agreement(headers: Mapping[str, Header], weight_map: dict[str, str] | None) -> None:
    """Every tensor in exactly one file, and exactly where the index says."""
    place: dict[str, str] = {}
    for file, header in headers.items():
        for tensor in header.tensors:
            if tensor.name in place:
                raise UnsafeCheckpoint(
                    f"tensor {shown(tensor.name)} is in `{place[tensor.name]}` and in `{file}`"
                )
            place[tensor.name] = file
    if not place:
        raise UnsafeCheckpoint("the safetensors files hold no tensors")
    if weight_map is None or weight_map == place:
        return
    for name, file in weight_map.items():
        if place.get(name) != file:
            raise UnsafeCheckpoint(f"the index says {shown(name)} is in `{file}`, and it is not")
    name = next(name for name in place if name not in weight_map)
    raise UnsafeCheckpoint(f"tensor {shown(name)} of `{place[name]}` is not in the index")


def _require_stored(family: Family, stack: Stack, names: list[str]) -> None:
    """Values that code would compute from the layer number must come from the file."""
    if not family.stored:
        return
    endings = {name.rpartition(".")[2] for name in names if stack.layer_of(name)}
    missing = [name for name in family.stored if name not in endings]
    if missing:
        raise UnsupportedModel(
            f"the file does not store `{missing[0]}`, which the model would compute from the "
            "layer number"
        )
