"""A folder that appears whole or not at all, and a write that can be taken up again.

The result grows in a hidden sibling of OUT with a journal of finished files. It gets its name
in one step when everything is there and on the disk. A process that is killed leaves the
hidden folder, and the next run for the same OUT, source and plan goes on from there; any
other run for that OUT removes it first. A lock on the folder keeps two runs apart.
"""

import errno
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from surgeon.checkpoint import disk
from surgeon.checkpoint.strict_json import parse_object
from surgeon.errors import OutputExists, Refused, SurgeonError, UnsafeCheckpoint

JOURNAL = "journal.json"
_MAX_JOURNAL = 256_000_000


def staging_path(out: Path) -> Path:
    """The hidden sibling in which OUT grows."""
    return out.with_name(f".{out.name}.surgeon")


def refuse_output(source: Path, out: Path, force: bool) -> None:
    """Refuse an output that is taken, or that would harm the source.

    Raises:
        Refused: OUT is the source, inside it, or a folder around it, or is no model folder.
        OutputExists: OUT is there and `force` was not given.
        SurgeonError: the folder OUT would be in does not exist.
    """
    real_source, real_out = source.resolve(), out.resolve()
    if real_out == real_source or real_source in real_out.parents:
        raise Refused(f"OUT `{out}` is the source or inside it")
    if real_out in real_source.parents:
        raise Refused(f"OUT `{out}` is a folder around the source")
    if not real_out.name or not out.parent.is_dir():
        raise SurgeonError(f"the folder `{out.parent}` does not exist")
    if not os.path.lexists(out) or _is_empty_folder(out):
        return
    if not force:
        raise OutputExists(
            f"OUT `{out}` exists", hint="choose another path, or give --force to replace it"
        )
    if out.is_symlink() or not out.is_dir():
        raise Refused(f"OUT `{out}` is not a folder, so it is not replaced")
    if not (out / "config.json").exists():
        raise Refused(f"OUT `{out}` is not a model folder, so --force does not replace it")


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink() and next(path.iterdir(), None) is None


@dataclass
class Staging:
    """The hidden folder while it is written.

    Args:
        path: the folder.
        out: what it becomes.
        key: what makes two runs the same: source, plan, layout.
        done: finished file name to what is known of it.
    """

    path: Path
    out: Path
    key: str
    done: dict[str, dict[str, Any]] = field(default_factory=dict)

    def finished(self, name: str, size: int) -> dict[str, Any] | None:
        """What an earlier run recorded of a file that is complete; None if it is not."""
        file = self.path / name
        if name in self.done and file.is_file() and file.stat().st_size == size:
            return self.done[name]
        return None

    def record(self, name: str, facts: dict[str, Any]) -> None:
        """Note that a file is complete and on the disk."""
        self.done[name] = facts
        draft = self.path / (JOURNAL + ".new")
        write_file(draft, json.dumps({"key": self.key, "done": self.done}).encode())
        disk.rename(draft, self.path / JOURNAL)

    def publish(self) -> None:
        """Give the folder its name; an old OUT goes only now.

        Raises:
            SurgeonError: OUT appeared meanwhile, or cannot be written.
        """
        try:
            disk.remove_file(self.path / JOURNAL)
            disk.sync_folder(self.path)
            if os.path.lexists(self.out) and not _is_empty_folder(self.out):
                self._replace()
            else:
                disk.rename(self.path, self.out)
        except OSError as error:
            raise SurgeonError(
                f"cannot publish `{self.out}`: {error.strerror}; nothing was published"
            ) from error
        try:
            disk.sync_folder(self.out.parent)
            for old in (self.path, self._aside):
                if old.is_dir():
                    disk.remove_tree(old)
        except OSError as error:
            raise SurgeonError(
                f"`{self.out}` is complete, but cleaning up beside it failed: {error.strerror}"
            ) from error

    @property
    def _aside(self) -> Path:
        """Where an old OUT waits if it cannot be swapped in one step."""
        return self.path.with_name(self.path.name + "-old")

    def _replace(self) -> None:
        """Swap in one step where the system can; else OUT is absent for an instant."""
        try:
            disk.exchange(self.path, self.out)
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP):
                raise
            if self._aside.is_dir():
                disk.remove_tree(self._aside)
            disk.rename(self.out, self._aside)
            disk.rename(self.path, self.out)


@contextmanager
def staging(out: Path, key: str) -> Iterator[Staging]:
    """The hidden folder for OUT, new or taken up, locked against other runs.

    It is removed on an error, and kept on an interrupt, from which the next run goes on.

    Raises:
        SurgeonError: another run is writing OUT, or the folder cannot be made.
    """
    path = staging_path(out)
    lock = _enter(path, out)
    try:
        done = _journal(path, key)
        if done is None:
            _empty(path)
        yield Staging(path, out, key, done or {})
    except KeyboardInterrupt:
        raise
    except BaseException:
        if path.is_dir():
            disk.remove_tree(path)
        raise
    finally:
        os.close(lock)


def _enter(path: Path, out: Path) -> int:
    """Make the folder or find it, and lock it."""
    try:
        if not os.path.lexists(path):
            disk.make_folder(path)
        return _lock(path)
    except OSError as error:
        raise SurgeonError(f"cannot write beside `{out}`: {error.strerror}") from error


def _empty(path: Path) -> None:
    """Remove what another run left; the folder itself stays, and stays locked."""
    for entry in sorted(path.iterdir()):
        if entry.is_dir() and not entry.is_symlink():
            disk.remove_tree(entry)
        else:
            disk.remove_file(entry)


def _journal(path: Path, key: str) -> dict[str, dict[str, Any]] | None:
    """Finished files of an earlier run with the same key."""
    try:
        body = parse_object((path / JOURNAL).read_bytes(), "journal", limit=_MAX_JOURNAL)
    except (OSError, UnsafeCheckpoint):
        return None
    done = body.get("done")
    return done if body.get("key") == key and isinstance(done, dict) else None


def _lock(path: Path) -> int:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)  # no locks here
        raise SurgeonError(
            f"another run is writing `{path.name}`", hint="wait for it, or choose another OUT"
        ) from None
    return handle


def write_file(path: Path, data: bytes) -> None:
    """A small file, whole and on the disk."""
    handle = disk.create(path)
    try:
        disk.write(handle, data, 0)
        disk.sync(handle)
    finally:
        os.close(handle)
