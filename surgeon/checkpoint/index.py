"""The index of a sharded checkpoint: which file holds which tensor.

File names are judged as text before any path is made of them: loaders in use follow `..`
and absolute paths in an index without complaint.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from surgeon.checkpoint.strict_json import check_depth, parse_object, shown
from surgeon.errors import UnsafeCheckpoint

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"
MAX_INDEX = 256_000_000  # bytes
MAX_ENTRIES = 4_000_000

_FILE = re.compile(r"[A-Za-z0-9_\-][A-Za-z0-9_.\-]{0,200}\.safetensors")
_DEVICE = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?", re.IGNORECASE)


def safe_file_name(name: Any) -> str:
    """The name itself if it is a plain safetensors file name.

    Raises:
        UnsafeCheckpoint: it has a separator, a leading dot, control characters, is a device
            name on some system, or does not end in `.safetensors`.
    """
    if not isinstance(name, str) or not _FILE.fullmatch(name) or _DEVICE.fullmatch(name):
        raise UnsafeCheckpoint(
            f"`{INDEX_NAME}` names the file {shown(str(name))}, "
            "which is not a plain `*.safetensors` file name"
        )
    return name


def parse_index(raw: bytes) -> dict[str, str]:
    """Tensor name to file name.

    Raises:
        UnsafeCheckpoint: malformed, hostile, or empty.
    """
    what = f"`{INDEX_NAME}`"
    body = parse_object(raw, what, limit=MAX_INDEX)
    check_depth(body, what)
    weight_map = body.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise UnsafeCheckpoint(f"{what} has no `weight_map`")
    if len(weight_map) > MAX_ENTRIES:
        raise UnsafeCheckpoint(f"{what} lists {len(weight_map):,} tensors, over {MAX_ENTRIES:,}")
    names = {safe_file_name(name) for name in weight_map.values()}
    if len({name.casefold() for name in names}) != len(names):
        raise UnsafeCheckpoint(f"{what} names two files that differ only in upper and lower case")
    return weight_map


def encode_index(weight_map: Mapping[str, str], total_bytes: int, total_parameters: int) -> bytes:
    """The index file.

    Args:
        weight_map: tensor name to file name.
        total_bytes: of all tensors, headers not included (what loaders call `total_size`).
        total_parameters: stored elements.
    """
    metadata = {"total_parameters": total_parameters, "total_size": total_bytes}
    body = {"metadata": metadata, "weight_map": dict(sorted(weight_map.items()))}
    return (json.dumps(body, indent=2, ensure_ascii=False) + "\n").encode()
