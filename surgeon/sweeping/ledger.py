"""The rows of a sweep on disk: JSON lines, append-only, for any number of workers.

    {"schema": "surgeon.ledger/1", "key": K, "inputs": {...}}              what K stands for
    {"key": K, "plan": ":8,4:", "task": "cups", "documents": [3, 1],
     "score": [1.0, 0.0], "gold": [-0.2, -3.1], "chosen": [4, 7]}          rows of one plan

`K` digests everything that decides a row: weights, tokenizer, documents, prompts, dtype,
versions. Rows under another key stay in the file and are never read as these.

A worker claims a unit of work by locking one byte of a file beside the ledger, so the
system gives the claim back when the worker dies, however it dies. Lines are appended under
a lock, after a look at what others appended, and rows that are there already are left out:
no row is ever in the file twice. A line cut short by a kill is ended and ignored.
"""

import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from surgeon.errors import SurgeonError
from surgeon.evals.stream import Drawn

SCHEMA = "surgeon.ledger/1"

_START = f'{{"schema":"{SCHEMA}"'.encode()

_APPEND = 2**62
"""The byte that is locked while lines are appended; units lock bytes below it."""


class Row(NamedTuple):
    """One candidate on one document: score, log-likelihood of the right answer, answer."""

    score: float
    gold: float
    chosen: int | str


@dataclass(frozen=True)
class Line:
    """Rows of one plan on documents of one task."""

    plan: str
    task: str
    documents: tuple[int, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Unit:
    """A piece of work: some plans, by their text, on some documents."""

    plans: tuple[str, ...]
    documents: tuple[Drawn, ...]

    @property
    def place(self) -> int:
        """The byte that stands for the unit, the same for every worker."""
        text = json.dumps([self.plans, [(d.task, d.doc_id) for d in self.documents]])
        return int.from_bytes(sha256(text.encode()).digest()[:7], "big")


def key_of(inputs: dict[str, Any]) -> str:
    """The key of rows that come from these inputs."""
    return sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]


class Ledger:
    """Rows under one key, in a file that may hold others.

    Args:
        path: the JSONL file; made if it is not there.
        inputs: everything that decides a row.

    Raises:
        SurgeonError: the file cannot be read or written, or is something else.
    """

    def __init__(self, path: Path, inputs: dict[str, Any]):
        self.path, self.key = path, key_of(inputs)
        self.known: dict[str, dict[Drawn, Row]] = {}
        self.broken = 0
        self._read_to = 0
        self._has_header = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            self._require_ledger()
            # One descriptor for all locks: closing another one would give them back.
            self._locks = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise SurgeonError(f"cannot open the ledger `{path}`: {error.strerror}") from error
        with self._locked(_APPEND):
            self._end_line()
            self.refresh()
            if not self._has_header:
                self._write([{"schema": SCHEMA, "key": self.key, "inputs": inputs}])

    def _require_ledger(self) -> None:
        """Refuse a file that is not ours; a first line may have been cut short by a kill."""
        first, _, rest = os.pread(self._file, 2 * len(_START), 0).partition(b"\n")
        cut = _START.startswith(first) and (not rest or rest.startswith(_START))
        if not (first.startswith(_START) or cut):
            os.close(self._file)
            raise SurgeonError(
                f"`{self.path}` is not a ledger of surgeon sweep",
                hint="give another file with --ledger",
            )

    def close(self) -> None:
        """Close the files; claims that are held are given back."""
        os.close(self._file)
        os.close(self._locks)

    def refresh(self) -> None:
        """Read what was appended since the last look, by anyone."""
        pieces = []
        at = self._read_to
        while piece := os.pread(self._file, 1 << 24, at):
            pieces.append(piece)
            at += len(piece)
        text = b"".join(pieces)
        end = text.rfind(b"\n") + 1
        for line in text[:end].splitlines():
            self._take(line)
        self._read_to += end

    def _take(self, line: bytes) -> None:
        try:
            entry = json.loads(line)
            if entry["key"] != self.key:
                return
            if "inputs" in entry:
                self._has_header = True
                return
            rows = self.known.setdefault(entry["plan"], {})
            parts = (entry[name] for name in ("documents", "score", "gold", "chosen"))
            for document, *row in zip(*parts, strict=True):
                rows.setdefault(Drawn(entry["task"], document), Row(*row))
        except (ValueError, KeyError, TypeError):
            self.broken += 1  # a line cut short by a kill; its rows are measured again

    def missing(self, unit: Unit) -> dict[str, list[Drawn]]:
        """What of a unit is not known yet: documents per plan."""
        found = {}
        for plan in unit.plans:
            rows = self.known.get(plan, {})
            left = [document for document in unit.documents if document not in rows]
            if left:
                found[plan] = left
        return found

    def rows(self, plan: str, documents: Sequence[Drawn]) -> list[Row]:
        """Known rows of one plan, in the order of the documents."""
        rows = self.known[plan]
        return [rows[document] for document in documents]

    def append(self, lines: Iterable[Line]) -> int:
        """Add the rows that are not there yet, and force them to the disk.

        Returns:
            How many rows were added.
        """
        with self._locked(_APPEND):
            self._end_line()
            self.refresh()
            fresh = [entry for line in lines if (entry := self._fresh(line))]
            self._write(fresh)
            self.refresh()
        return sum(len(entry["documents"]) for entry in fresh)

    def _fresh(self, line: Line) -> dict[str, Any] | None:
        rows = self.known.get(line.plan, {})
        new = [
            (document, row)
            for document, row in zip(line.documents, line.rows, strict=True)
            if Drawn(line.task, document) not in rows
        ]
        if not new:
            return None
        columns = {name: [getattr(row, name) for _, row in new] for name in Row._fields}
        return {
            "key": self.key,
            "plan": line.plan,
            "task": line.task,
            "documents": [document for document, _ in new],
            **columns,
        }

    def _end_line(self) -> None:
        """End a line that was cut short; the append lock is held, so its writer is dead."""
        size = os.fstat(self._file).st_size
        if size and os.pread(self._file, 1, size - 1) != b"\n":
            self._put(b"\n")

    def _write(self, entries: Sequence[dict[str, Any]]) -> None:
        lines = [json.dumps(e, separators=(",", ":"), allow_nan=False) + "\n" for e in entries]
        self._put("".join(lines).encode())

    def _put(self, data: bytes) -> None:
        try:
            while data:
                data = data[os.write(self._file, data) :]
            os.fsync(self._file)
        except OSError as error:
            raise SurgeonError(f"cannot write `{self.path}`: {error.strerror}") from error

    @contextmanager
    def claim(self, unit: Unit) -> Iterator[bool]:
        """Try to take a unit; says whether it is this worker's until the body ends."""
        try:
            fcntl.lockf(self._locks, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, unit.place)
        except BlockingIOError:
            yield False
            return
        try:
            self.refresh()
            yield True
        finally:
            fcntl.lockf(self._locks, fcntl.LOCK_UN, 1, unit.place)

    @contextmanager
    def _locked(self, place: int) -> Iterator[None]:
        fcntl.lockf(self._locks, fcntl.LOCK_EX, 1, place)
        try:
            yield
        finally:
            fcntl.lockf(self._locks, fcntl.LOCK_UN, 1, place)
