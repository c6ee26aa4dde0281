"""Every system call that changes the disk, one function each, and nothing else.

All writing of checkpoints goes through here, so that tests can stop the process before any
single step, or let any step fail, and look at what is left.
"""

import ctypes
import errno
import fcntl
import os
import shutil
import struct
from pathlib import Path

_FICLONERANGE = 0x4020940D
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_RWF_DONTCACHE = 0x80
BLOCK = 4096  # bytes; cloned ranges and direct writes are multiples of it
BUFFER = 8 << 20  # bytes read and written at once; a multiple of BLOCK


def create(path: Path) -> int:
    """A new file, opened for writing; the mode follows the umask."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)


def allocate(handle: int, size: int) -> None:
    """Reserve space, so that a full disk shows now; a no-op where it is not supported."""
    if size:
        try:
            os.posix_fallocate(handle, 0, size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise


def write(handle: int, data: bytes | memoryview, at: int) -> None:
    """Write all of `data` at a file offset."""
    view = memoryview(data)
    while view:
        try:
            done = os.pwrite(handle, view, at)
        except OSError as error:
            direct = fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_DIRECT
            if error.errno != errno.EINVAL or not direct:
                raise
            use_cache(handle)  # the filesystem wants larger blocks than ours
            continue
        view, at = view[done:], at + done


def read(source: int, view: memoryview, at: int) -> int:
    """Read into a buffer; returns how many bytes, 0 at the end of the file.

    Pages that were not in the page cache are not kept there (Linux 6.14).
    """
    try:
        return os.preadv(source, [view], at, _RWF_DONTCACHE)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            raise
    return os.preadv(source, [view], at)


def bypass_cache(handle: int) -> None:
    """Write whole blocks from page-aligned buffers straight to the disk, where that can be."""
    _set_flags(handle, fcntl.fcntl(handle, fcntl.F_GETFL) | os.O_DIRECT)


def use_cache(handle: int) -> None:
    """Write through the page cache again."""
    _set_flags(handle, fcntl.fcntl(handle, fcntl.F_GETFL) & ~os.O_DIRECT)


def _set_flags(handle: int, flags: int) -> None:
    try:
        fcntl.fcntl(handle, fcntl.F_SETFL, flags)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a filesystem without direct writes
            raise


def clone_range(source: int, start: int, handle: int, to: int, length: int) -> None:
    """Share the blocks of a range; all three numbers are multiples of the block size."""
    fcntl.ioctl(handle, _FICLONERANGE, struct.pack("=qQQQ", source, start, length, to))


def sync(handle: int) -> None:
    """Force a file to the disk."""
    os.fsync(handle)


def sync_folder(path: Path) -> None:
    """Force a folder's entries to the disk."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def link(source: Path, target: Path) -> None:
    """A second name for the same file."""
    os.link(source, target)


def make_folder(path: Path) -> None:
    """A new folder."""
    os.mkdir(path)


def rename(source: Path, target: Path) -> None:
    """Rename; an existing target folder is replaced only if it is empty."""
    os.rename(source, target)


def exchange(one: Path, other: Path) -> None:
    """Swap two folders in one step.

    Raises:
        OSError: ENOSYS or EINVAL where the system or the filesystem cannot.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    names = os.fsencode(one), os.fsencode(other)
    if libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(one), None, str(other))


def remove_file(path: Path) -> None:
    """Remove a file that may be absent."""
    path.unlink(missing_ok=True)


def remove_tree(path: Path) -> None:
    """Remove a folder and what is in it; links are removed, not followed."""
    shutil.rmtree(path)


def free_bytes(path: Path) -> int:
    """Bytes an ordinary user may still write on the filesystem of `path`."""
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize
