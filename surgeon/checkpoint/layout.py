"""Where every byte of the result comes from: output files as headers and source ranges.

Shard boundaries and the order inside a shard are kept. A shard's first copies stay in source
order, so that its old payload remains one contiguous range, and repeated layers follow it.
Where that would put a tensor at an address that is no multiple of its element size, the
copies are sorted in by element size instead (readers that map a file cannot view misaligned
tensors). Dropped layers leave their ranges out.

For cloning, an appended copy rarely keeps its place within disk blocks, so each contiguous
run of repeated bytes gets a file of its own with a header padded to the right length.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from surgeon.checkpoint.header import Header, Tensor, encode_header
from surgeon.checkpoint.index import SINGLE_NAME
from surgeon.checkpoint.stack import Stack
from surgeon.checkpoint.store import Checkpoint
from surgeon.plan import LayerPlan

SHARD_LIMIT = 20_000_000_000  # bytes; the Hub's advice for one file
CLONE_WORTH = 1 << 20  # bytes; a smaller run is copied, not cloned into a file of its own


@dataclass(frozen=True)
class Segment:
    """A range of a source file and where it goes, all in bytes from the start of a file."""

    file: str
    start: int
    length: int
    to: int


@dataclass(frozen=True)
class Placed:
    """A tensor of the result: its entry in the new header, and the source tensor."""

    entry: Tensor
    source: Tensor
    file: str


@dataclass(frozen=True)
class OutputFile:
    """One safetensors file of the result."""

    name: str
    header: bytes
    placed: tuple[Placed, ...]
    segments: tuple[Segment, ...]

    @property
    def size(self) -> int:
        """Of the whole file in bytes."""
        return len(self.header) + sum(segment.length for segment in self.segments)

    def copy_of(self, header: Header, raw: bytes) -> bool:
        """Whether the file equals its source file byte for byte.

        Args:
            header: of the source file.
            raw: the source file's header bytes with the length.
        """
        return raw == self.header and self.segments == (
            Segment(header.path.name, header.payload, header.size - header.payload, len(raw)),
        )


@dataclass(frozen=True)
class _Copy:
    """One tensor of the result before it has a place."""

    name: str
    source: Tensor
    file: str


def lay_out(
    checkpoint: Checkpoint, plan: LayerPlan, *, clone: bool = False, limit: int = SHARD_LIMIT
) -> list[OutputFile]:
    """The files of the result.

    Args:
        checkpoint: the source.
        plan: which layer runs at each position.
        clone: lay out for a filesystem that can clone ranges.
        limit: largest size in bytes before repeated layers get a file of their own.
    """
    parts: list[tuple[list[_Copy], Header]] = []
    for file, header in checkpoint.headers.items():
        first, repeated = _copies(file, header, checkpoint.stack, plan)
        extra = [repeated] if repeated else []
        if clone:
            extra = _runs(repeated)
            small = [run for run in extra if _nbytes(run) < CLONE_WORTH]
            first = first + [copy for run in small for copy in run]
            extra = [run for run in extra if _nbytes(run) >= CLONE_WORTH]
        elif repeated and _nbytes(first) + _nbytes(repeated) <= limit:
            first, extra = first + repeated, []
        parts += [(part, header) for part in (first, *extra) if part]
    names = _names(len(parts))
    return [
        _file(name, part, header, clone) for name, (part, header) in zip(names, parts, strict=True)
    ]


def _names(count: int) -> list[str]:
    if count == 1:
        return [SINGLE_NAME]
    return [f"model-{at:05d}-of-{count:05d}.safetensors" for at in range(1, count + 1)]


def _nbytes(copies: Iterable[_Copy]) -> int:
    return sum(copy.source.nbytes for copy in copies)


def _copies(
    file: str, header: Header, stack: Stack, plan: LayerPlan
) -> tuple[list[_Copy], list[_Copy]]:
    """First copies in source order, and the further ones, repetition by repetition."""
    first: list[_Copy] = []
    further: dict[int, list[_Copy]] = {}
    for tensor in header.tensors:
        for time, name in enumerate(stack.renamed(tensor.name, plan)):
            copy = _Copy(name, tensor, file)
            (further.setdefault(time, []) if time else first).append(copy)
    return first, [copy for time in sorted(further) for copy in further[time]]


def _runs(copies: list[_Copy]) -> list[list[_Copy]]:
    """Split where the source ranges stop being contiguous."""
    runs: list[list[_Copy]] = [copies[:1]] if copies else []
    for before, copy in pairwise(copies):
        if before.source.stop == copy.source.start:
            runs[-1].append(copy)
        else:
            runs.append([copy])
    return runs


def _aligned(copies: list[_Copy]) -> list[_Copy]:
    """The same copies, reordered only if a tensor would be misaligned."""
    at = 0
    for copy in copies:
        if at % copy.source.item_bytes:
            return sorted(copies, key=lambda copy: -copy.source.item_bytes)
        at += copy.source.nbytes
    return copies


def _file(name: str, copies: list[_Copy], source: Header, clone: bool) -> OutputFile:
    """Give every copy its place, write the header, and merge adjacent ranges."""
    placed, at = [], 0
    for copy in _aligned(copies):
        _, dtype, shape, start, stop = copy.source
        entry = Tensor(copy.name, dtype, shape, at, at + stop - start)
        placed.append(Placed(entry, copy.source, copy.file))
        at = entry.stop
    metadata = {"format": "pt", **source.metadata}
    place = (source.payload + placed[0].source.start) % 4096
    # A header whose length is no multiple of 8 would misalign every tensor behind it.
    residue = place if clone and place % 8 == 0 else None
    header = encode_header([item.entry for item in placed], metadata, residue=residue)
    return OutputFile(name, header, tuple(placed), _segments(placed, source, len(header)))


def _segments(placed: list[Placed], source: Header, payload: int) -> tuple[Segment, ...]:
    merged: list[Segment] = []
    for item in placed:
        start, length = source.payload + item.source.start, item.source.nbytes
        last = merged[-1] if merged else None
        if last and last.start + last.length == start:
            merged[-1] = Segment(last.file, last.start, last.length + length, last.to)
        elif length:
            merged.append(Segment(item.file, start, length, payload + item.entry.start))
    return tuple(merged)
