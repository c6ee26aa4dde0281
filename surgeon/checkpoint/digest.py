"""Digests of bytes, written with their algorithm: `blake3:<hex>`.

BLAKE3 is a tree hash (O'Connor, Aumasson, Neves, Wilcox-O'Hearn, "BLAKE3: one function, fast
everywhere", 2020): it uses the vector units and several cores, so that it keeps up with a disk
where sha256 does not. `b3sum` gives the same numbers.
"""

import hashlib
from pathlib import Path
from typing import Protocol

from blake3 import blake3

from surgeon.checkpoint import disk
from surgeon.errors import SurgeonError

ALGORITHM = "blake3"


class Hasher(Protocol):
    """What `hashlib` and `blake3` have in common."""

    def update(self, data: memoryview, /) -> object:
        """Take more bytes."""
        ...

    def hexdigest(self) -> str:
        """The digest of all bytes taken."""
        ...


def new(algorithm: str = ALGORITHM) -> Hasher:
    """A hasher without bytes.

    Raises:
        SurgeonError: the algorithm is not one that manifests use.
    """
    if algorithm == ALGORITHM:
        return blake3(max_threads=blake3.AUTO)
    if algorithm == "sha256":  # of manifests of the first schema
        return hashlib.sha256()
    raise SurgeonError(f"digests by `{algorithm}` cannot be checked; known: {ALGORITHM}, sha256")


def state(hasher: Hasher, algorithm: str = ALGORITHM) -> str:
    """The digest as manifests have it."""
    return f"{algorithm}:{hasher.hexdigest()}"


def of_bytes(data: bytes) -> str:
    """The digest of bytes in memory."""
    hasher = new()
    hasher.update(memoryview(data))
    return state(hasher)


def of_range(
    path: Path, start: int = 0, length: int | None = None, *, like: str | None = None
) -> str:
    """The digest of a file or a range of it, read in pieces.

    Args:
        path: the file.
        start: first byte.
        length: number of bytes; None is all that follow.
        like: a stated digest whose algorithm to use; None is the present one.

    Raises:
        SurgeonError: it cannot be read, or the algorithm is unknown.
    """
    algorithm = like.partition(":")[0] if like else ALGORITHM
    hasher, buffer = new(algorithm), memoryview(bytearray(disk.BUFFER))
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(start)
            left = path.stat().st_size - start if length is None else length
            while left > 0 and (count := file.readinto(buffer[:left])):
                hasher.update(buffer[:count])
                left -= count
    except OSError as error:
        raise SurgeonError(f"cannot read `{path.name}`: {error.strerror}") from error
    return state(hasher, algorithm)
