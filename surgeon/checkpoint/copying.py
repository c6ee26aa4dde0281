"""Move the bytes of one output file: cloned, or read, digested and written side by side.

A file is streamed through a ring of a few buffers. While this thread fills one from the
sources, a second thread writes an earlier one and a third digests it, so memory is constant
and every byte is read once. Where the filesystem allows it the bytes go to the disk without
passing through the page cache: a copy of gigabytes then neither waits for the system to find
memory nor pushes other files out of it.
"""

import errno
import mmap
import os
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from surgeon.checkpoint import digest, disk
from surgeon.checkpoint.disk import BLOCK
from surgeon.checkpoint.layout import OutputFile, Segment

Link = Literal["auto", "reflink", "copy", "hard"]
OnBytes = Callable[[int], None]
_SLOTS = 4  # buffers in the ring
_CANNOT = {errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY, errno.EBADF}


@dataclass
class Digests:
    """Digests of a written file, and of the source tensors read for it."""

    file: str | None = None
    tensors: dict[str, str] = field(default_factory=dict)


class Digester:
    """Takes the bytes of an output file in order, for its digest and its tensors'.

    Args:
        output: the file.
        known: source tensors whose digest is known already.
    """

    def __init__(self, output: OutputFile, known: Mapping[str, str]) -> None:
        self._whole, self._tensor = digest.new(), digest.new()
        self._at = 0
        self._tensors: dict[str, str] = {}
        spans: dict[str, tuple[int, int]] = {}
        for placed in output.placed:
            if placed.source.name not in known:
                start = len(output.header) + placed.entry.start
                spans.setdefault(placed.source.name, (start, start + placed.entry.nbytes))
        self._spans = deque(spans.items())

    def add(self, view: memoryview) -> None:
        """Take the next bytes."""
        self._whole.update(view)
        at, end = self._at, self._at + len(view)
        self._at = end
        while self._spans:
            name, (start, stop) = self._spans[0]
            if start > end:
                return
            self._tensor.update(view[max(start - at, 0) : stop - at])
            if stop > end:
                return
            self._tensors[name] = digest.state(self._tensor)
            self._tensor = digest.new()
            self._spans.popleft()

    def found(self) -> Digests:
        """The digests, once all bytes were taken."""
        return Digests(digest.state(self._whole), self._tensors)


class _Stream:
    """The bytes of an output file in order, wherever they come from."""

    def __init__(self, output: OutputFile, sources: Mapping[str, int]) -> None:
        self._sources = sources
        self._header = memoryview(output.header)
        self._segments = iter(output.segments)
        self._name, self._at, self._left = "", 0, 0

    def fill(self, view: memoryview) -> None:
        """Fill a buffer with the bytes that follow."""
        count = min(len(view), len(self._header))
        view[:count], self._header = self._header[:count], self._header[count:]
        view = view[count:]
        while view:
            if not self._left:
                segment = next(self._segments)
                self._name, self._at, self._left = segment.file, segment.start, segment.length
            count = _read(self._sources[self._name], self._name, view[: self._left], self._at)
            self._at, self._left = self._at + count, self._left - count
            view = view[count:]


def _read(source: int, name: str, view: memoryview, at: int) -> int:
    """Read into a buffer; at least one byte."""
    count = disk.read(source, view, at)
    if not count:
        raise OSError(errno.EIO, f"`{name}` ended early; it was changed meanwhile")
    return count


def write_output(
    output: OutputFile,
    target: Path,
    sources: Mapping[str, int],
    *,
    clone: bool,
    known: Mapping[str, str],
    on_bytes: OnBytes,
) -> Digests:
    """Write one file of the result and force it to the disk.

    Args:
        output: what goes where.
        target: path of the new file.
        sources: source file name to an open descriptor.
        clone: share blocks with the source instead of copying; nothing is digested then, since
            nothing is read.
        known: tensors whose digest is known already.
        on_bytes: called with the bytes of each finished step; it may raise to stop.

    Raises:
        OSError: as the system gave it.
    """
    handle = disk.create(target)
    try:
        if clone:
            disk.write(handle, output.header, 0)
            for segment in output.segments:
                clone_segment(segment, sources[segment.file], handle, on_bytes)
            digests = Digests()
        else:
            disk.allocate(handle, output.size)
            digests = _copy(output, sources, handle, known, on_bytes)
        disk.sync(handle)
    finally:
        os.close(handle)
    return digests


def _copy(
    output: OutputFile,
    sources: Mapping[str, int],
    handle: int,
    known: Mapping[str, str],
    on_bytes: OnBytes,
) -> Digests:
    """Stream the whole file through the ring."""
    stream, digester = _Stream(output, sources), Digester(output, known)
    # Anonymous maps start at a page, as writing past the page cache demands.
    free = deque(memoryview(mmap.mmap(-1, disk.BUFFER)) for _ in range(_SLOTS))
    busy: deque[tuple[memoryview, int, list[Future[None]]]] = deque()

    def settle() -> None:
        """Wait for the oldest buffer, raise what went wrong with it, and free it."""
        buffer, count, jobs = busy.popleft()
        for job in jobs:
            job.result()
        on_bytes(count)
        free.append(buffer)

    disk.bypass_cache(handle)
    with ThreadPoolExecutor(1) as writing, ThreadPoolExecutor(1) as digesting:
        for at in range(0, output.size, disk.BUFFER):
            if not free:
                settle()
            buffer = free.popleft()
            view = buffer[: output.size - at]
            stream.fill(view)
            jobs = [writing.submit(_put, handle, view, at), digesting.submit(digester.add, view)]
            busy.append((buffer, len(view), jobs))
        while busy:
            settle()
    return digester.found()


def _put(handle: int, view: memoryview, at: int) -> None:
    """Write whole blocks as they are; the file's last part goes through the page cache."""
    whole = len(view) // BLOCK * BLOCK
    if whole:
        disk.write(handle, view[:whole], at)
    if whole < len(view):
        disk.use_cache(handle)
        disk.write(handle, view[whole:], at + whole)


def _copy_range(segment: Segment, source: int, handle: int, on_bytes: OnBytes) -> None:
    """Copy a range through memory."""
    done, buffer = 0, memoryview(bytearray(min(disk.BUFFER, segment.length)))
    while done < segment.length:
        view = buffer[: segment.length - done]
        count = _read(source, segment.file, view, segment.start + done)
        disk.write(handle, view[:count], segment.to + done)
        done += count
        on_bytes(count)


def clone_segment(segment: Segment, source: int, handle: int, on_bytes: OnBytes) -> None:
    """Share the whole blocks of a range and copy its edges.

    A range that does not keep its place within blocks is copied.
    """
    head = -segment.to % BLOCK
    body = (segment.length - head) // BLOCK * BLOCK
    if (segment.start - segment.to) % BLOCK or body <= 0:
        _copy_range(segment, source, handle, on_bytes)
        return
    for offset, length in ((0, head), (head + body, segment.length - head - body)):
        edge = Segment(segment.file, segment.start + offset, length, segment.to + offset)
        _copy_range(edge, source, handle, on_bytes)
    disk.clone_range(source, segment.start + head, handle, segment.to + head, body)
    on_bytes(body)


def can_clone(source: int, folder: Path) -> bool:
    """Whether blocks can be shared between an open file and new files of `folder`."""
    probe = folder / ".clone-probe"
    handle = disk.create(probe)
    try:
        disk.clone_range(source, 0, handle, 0, BLOCK)
    except OSError as error:
        if error.errno in _CANNOT | {errno.EPERM, errno.EACCES}:
            return False
        raise
    finally:
        os.close(handle)
        disk.remove_file(probe)
    return True
