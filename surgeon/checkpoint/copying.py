"""Move the bytes of one output file: cloned, copied by the kernel, or read, digested, written.

Memory is constant. Digests are taken in threads of their own while the first one reads and
writes.
"""

import errno
import hashlib
import os
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from surgeon.checkpoint import disk
from surgeon.checkpoint.layout import OutputFile, Segment

Link = Literal["auto", "reflink", "copy", "hard"]
OnBytes = Callable[[int], None]
BLOCK = 4096  # bytes; clone ranges are multiples of it
_KERNEL_CHUNK = 32 << 20
_CANNOT = {errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY, errno.EBADF}


@dataclass
class Digests:
    """sha256 of a written file, and of the source tensors read for it."""

    file: str | None = None
    tensors: dict[str, str] = field(default_factory=dict)


class _Consumer:
    """A thread that takes the chunks of a file in order from a bounded queue."""

    def __init__(self, work: Callable[[Iterator[bytes]], None]) -> None:
        self._chunks: queue.Queue[bytes | None] = queue.Queue(maxsize=4)
        self._thread = threading.Thread(target=work, args=(self._stream(),), daemon=True)
        self._thread.start()

    def _stream(self) -> Iterator[bytes]:
        while (chunk := self._chunks.get()) is not None:
            yield chunk

    def add(self, chunk: bytes) -> None:
        self._chunks.put(chunk)

    def finish(self) -> None:
        self._chunks.put(None)
        self._thread.join()


class _Digester:
    """Digests of a file and of its tensors, each in a thread: hashing is slower than copying."""

    def __init__(self, output: OutputFile, known: Mapping[str, str]) -> None:
        self._found = Digests()
        self._output, self._known = output, known
        self._consumers = (_Consumer(self._digest_file), _Consumer(self._digest_tensors))

    def add(self, chunk: bytes) -> None:
        for consumer in self._consumers:
            consumer.add(chunk)

    def finish(self) -> Digests:
        for consumer in self._consumers:
            consumer.finish()
        return self._found

    def _digest_file(self, stream: Iterator[bytes]) -> None:
        whole = hashlib.sha256(self._output.header)
        for chunk in stream:
            whole.update(chunk)
        self._found.file = whole.hexdigest()

    def _digest_tensors(self, stream: Iterator[bytes]) -> None:
        rest = memoryview(b"")
        for placed in self._output.placed:
            name, missing = placed.source.name, placed.entry.nbytes
            fresh = name not in self._known and name not in self._found.tensors
            tensor = hashlib.sha256()
            while missing:
                rest = rest or memoryview(next(stream, b""))
                if not rest:
                    return  # the writer stopped early
                part, rest = rest[:missing], rest[missing:]
                missing -= len(part)
                if fresh:
                    tensor.update(part)
            if fresh:
                self._found.tensors[name] = tensor.hexdigest()
        for _ in stream:
            pass


def write_output(
    output: OutputFile,
    target: Path,
    sources: Mapping[str, int],
    *,
    clone: bool,
    digest: bool,
    known: Mapping[str, str],
    on_bytes: OnBytes,
) -> Digests:
    """Write one file of the result and force it to the disk.

    Args:
        output: what goes where.
        target: path of the new file.
        sources: source file name to an open descriptor.
        clone: share blocks with the source instead of copying; nothing is digested then.
        digest: take digests on the way.
        known: tensors whose digest is known already.
        on_bytes: called with the bytes of each finished step; it may raise to stop.

    Raises:
        OSError: as the system gave it.
    """
    handle = disk.create(target)
    try:
        if not clone:
            disk.allocate(handle, output.size)
        disk.write(handle, output.header, 0)
        if clone:
            for segment in output.segments:
                clone_segment(segment, sources[segment.file], handle, on_bytes)
            digests = Digests()
        elif digest:
            digests = _copy_digested(output, sources, handle, known, on_bytes)
        else:
            for segment in output.segments:
                copy_segment(segment, sources[segment.file], handle, on_bytes)
            digests = Digests()
        disk.sync(handle)
    finally:
        os.close(handle)
    return digests


def _copy_digested(
    output: OutputFile,
    sources: Mapping[str, int],
    handle: int,
    known: Mapping[str, str],
    on_bytes: OnBytes,
) -> Digests:
    digester = _Digester(output, known)
    try:
        for segment in output.segments:
            for chunk, to in _read(segment, sources[segment.file]):
                digester.add(chunk)
                disk.write(handle, chunk, to)
                on_bytes(len(chunk))
    finally:
        digests = digester.finish()
    return digests


def _read(segment: Segment, source: int) -> Iterator[tuple[bytes, int]]:
    """The bytes of a segment in pieces, each with its place in the target."""
    done = 0
    while done < segment.length:
        size = min(disk.BUFFER, segment.length - done)
        chunk = os.pread(source, size, segment.start + done)
        if not chunk:
            raise OSError(errno.EIO, f"`{segment.file}` ended early; it was changed meanwhile")
        yield chunk, segment.to + done
        done += len(chunk)


def copy_segment(segment: Segment, source: int, handle: int, on_bytes: OnBytes) -> None:
    """Copy a range inside the kernel, or through memory where it cannot."""
    done = 0
    while done < segment.length:
        size = min(_KERNEL_CHUNK, segment.length - done)
        try:
            moved = disk.copy_range(source, segment.start + done, handle, segment.to + done, size)
        except OSError as error:
            if error.errno not in _CANNOT:
                raise
            moved = 0
        if not moved:
            rest = Segment(
                segment.file, segment.start + done, segment.length - done, segment.to + done
            )
            for chunk, to in _read(rest, source):
                disk.write(handle, chunk, to)
                on_bytes(len(chunk))
            return
        done += moved
        on_bytes(moved)


def clone_segment(segment: Segment, source: int, handle: int, on_bytes: OnBytes) -> None:
    """Share the whole blocks of a range and copy its edges.

    A range that does not keep its place within blocks is copied.
    """
    head = -segment.to % BLOCK
    body = (segment.length - head) // BLOCK * BLOCK
    if (segment.start - segment.to) % BLOCK or body <= 0:
        copy_segment(segment, source, handle, on_bytes)
        return
    tail = segment.length - head - body
    edges = [(0, head), (head + body, tail)]
    for offset, length in edges:
        part = Segment(segment.file, segment.start + offset, length, segment.to + offset)
        for chunk, to in _read(part, source):
            disk.write(handle, chunk, to)
            on_bytes(length)
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
