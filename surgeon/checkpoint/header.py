"""The safetensors container: a strict header reader and a header writer.

A file is an unsigned 64-bit little-endian header length, a JSON header, and the payload.
The header maps each tensor name to dtype, shape and a half-open byte range of the payload;
ranges cover the payload without holes or overlaps.

The reader accepts less than the reference parser: it also refuses duplicate keys and a
header that does not start with `{`, because two readers may disagree about such a file.
"""

import json
import os
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from surgeon.checkpoint.strict_json import parse_object, shown
from surgeon.errors import SurgeonError, UnsafeCheckpoint

MAX_HEADER = 100_000_000  # bytes; the reference parser's limit
MAX_NAME = 1024  # characters of a tensor name
MAX_RANK = 64

BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
    "F64": 64, "I64": 64, "U64": 64, "C64": 64,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip
"""Bits of one element."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Tensor(NamedTuple):
    """One entry of a header; `start` and `stop` are payload offsets in bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def nbytes(self) -> int:
        """Stored size in bytes."""
        return self.stop - self.start

    @property
    def numel(self) -> int:
        """Stored elements; packed formats hold several values in one."""
        return prod(self.shape)

    @property
    def item_bytes(self) -> int:
        """Alignment in bytes that a reader which maps the file needs."""
        return max(1, BITS[self.dtype] // 8)


@dataclass(frozen=True)
class Header:
    """What one safetensors file holds.

    Args:
        path: the file.
        size: of the whole file in bytes.
        payload: offset of the payload from the start of the file in bytes.
        tensors: in payload order.
        metadata: the `__metadata__` entry.
    """

    path: Path
    size: int
    payload: int
    tensors: tuple[Tensor, ...]
    metadata: Mapping[str, str]


def read_header(path: Path) -> Header:
    """Read and judge the header of one file; no payload byte is read.

    Raises:
        SurgeonError: the file is missing or cannot be read.
        UnsafeCheckpoint: it is not a sound safetensors file.
    """
    try:
        # O_NONBLOCK: a named pipe with a model's name must not hang the reader.
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise SurgeonError(f"cannot read `{path}`: {error.strerror}") from error
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode):
        os.close(handle)
        raise UnsafeCheckpoint(f"`{path.name}` is not a regular file")
    with os.fdopen(handle, "rb") as file:
        raw = _raw_header(file, status.st_size, path.name)
    tensors, metadata = parse_header(raw, status.st_size - 8 - len(raw), path.name)
    return Header(path, status.st_size, 8 + len(raw), tensors, metadata)


def _raw_header(file: Any, size: int, name: str) -> bytes:
    """The JSON bytes; the claimed length is checked before anything of that size is made."""
    if size < 8:
        raise UnsafeCheckpoint(f"`{name}` has {size} bytes: too short for a safetensors file")
    length = int.from_bytes(file.read(8), "little")
    if length > min(MAX_HEADER, size - 8):
        raise UnsafeCheckpoint(
            f"`{name}` claims a header of {length:,} bytes in a file of {size:,} bytes",
            hint="the file is truncated, or it is not a safetensors file",
        )
    raw: bytes = file.read(length)
    if len(raw) != length:
        raise UnsafeCheckpoint(f"`{name}` ends inside its header")
    return raw


def parse_header(
    raw: bytes, payload_bytes: int, name: str
) -> tuple[tuple[Tensor, ...], dict[str, str]]:
    """Tensors in payload order and metadata, from the JSON bytes of a header.

    Args:
        raw: the header without its length.
        payload_bytes: size of what follows it.
        name: file name for messages.

    Raises:
        UnsafeCheckpoint: any departure from the format.
    """
    if not raw.startswith(b"{"):
        raise UnsafeCheckpoint(f"the header of `{name}` does not start with an opening brace")
    entries = parse_object(raw, f"the header of `{name}`", limit=MAX_HEADER)
    metadata = _metadata(entries.pop("__metadata__", {}), name)
    tensors = sorted(
        (_tensor(key, entry, name) for key, entry in entries.items()),
        key=lambda tensor: (tensor.start, tensor.stop),
    )
    _check_coverage(tensors, payload_bytes, name)
    return tuple(tensors), metadata


def _metadata(value: Any, name: str) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise UnsafeCheckpoint(f"`__metadata__` of `{name}` is not a map of strings")
    return value


def _is_count(value: Any) -> bool:
    """A non-negative integer below 2^63; JSON `true` is not one."""
    return type(value) is int and 0 <= value < 2**63


def _tensor(key: str, entry: Any, name: str) -> Tensor:
    """One entry, judged on its own."""
    where = f"tensor {shown(key)} of `{name}`"
    if not key or len(key) > MAX_NAME or _CONTROL.search(key):
        raise UnsafeCheckpoint(f"{where}: the name is empty, too long, or has control characters")
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise UnsafeCheckpoint(f"{where} does not have exactly dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        raise UnsafeCheckpoint(f"{where} has the unknown dtype {shown(str(dtype))}")
    if not isinstance(shape, list) or len(shape) > MAX_RANK or not all(map(_is_count, shape)):
        raise UnsafeCheckpoint(f"{where} has a shape that is not a list of sizes")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_is_count, offsets)):
        raise UnsafeCheckpoint(f"{where} has data_offsets that are not two offsets")
    start, stop = offsets
    bits = prod(shape) * BITS[dtype]
    if bits % 8 or stop - start != bits // 8:
        raise UnsafeCheckpoint(
            f"{where}: {dtype} of shape {shape} needs {bits / 8:,.1f} bytes, "
            f"its range {start}..{stop} has {stop - start:,}"
        )
    return Tensor(key, dtype, tuple(shape), start, stop)


def _check_coverage(tensors: list[Tensor], payload_bytes: int, name: str) -> None:
    """Ranges follow each other from 0 to the end of the file."""
    at = 0
    for tensor in tensors:
        if tensor.start != at:
            kind = "overlaps the one before it" if tensor.start < at else "leaves a hole before it"
            raise UnsafeCheckpoint(
                f"tensor {shown(tensor.name)} of `{name}` {kind}: it starts at {tensor.start}, "
                f"expected {at}"
            )
        at = tensor.stop
    if at != payload_bytes:
        raise UnsafeCheckpoint(
            f"the tensors of `{name}` take {at:,} bytes, the file holds {payload_bytes:,}",
            hint="the file is truncated or has something appended; download it again",
        )


def encode_header(
    tensors: Iterable[Tensor], metadata: Mapping[str, str], *, residue: int | None = None
) -> bytes:
    """Header bytes with their length in front, padded with spaces.

    Args:
        tensors: entries with the offsets of the new payload.
        metadata: the `__metadata__` entry; left out if empty.
        residue: pad so that the total length has this remainder modulo 4096 (a payload that
            keeps its place within disk blocks can be cloned); None pads to a multiple of 8.
    """
    body: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    for name, dtype, shape, start, stop in tensors:
        body[name] = {"dtype": dtype, "shape": shape, "data_offsets": (start, stop)}
    text = json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()
    step, rest = (8, 0) if residue is None else (4096, residue)
    text += b" " * ((rest - 8 - len(text)) % step)
    return len(text).to_bytes(8, "little") + text
