"""A run folder: one JSON record a stage, and what each was made from.

A stage is done when its record is on disk and `stages.json` holds the record's digest and
a key over everything the stage was made from. A later run with the same key takes the
record as it is; with another key it computes the stage anew, and since keys chain, all
that depends on it too. Records are written aside and renamed, the ledger last, so a kill
at any moment leaves either a finished stage or none.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from surgeon.errors import SurgeonError, UsageError
from surgeon.record import Record
from surgeon.version import __version__

R = TypeVar("R", bound=Record)


def digest(value: Any) -> str:
    """sha256 of a JSON value in canonical form."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with aside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


class StageDone(Record):
    """What `stages.json` holds of a finished stage."""

    key: str
    sha256: str
    seconds: float


class RunFolder:
    """The folder of one run.

    Args:
        path: created if it is missing; must be empty or a run folder.

    Raises:
        UsageError: the path is a file, or a folder with other things in it.
    """

    LEDGER = "stages.json"

    def __init__(self, path: Path):
        self.path = path
        ledger = path / self.LEDGER
        if path.exists() and not path.is_dir():
            raise UsageError(f"`{path}` is a file, expected a run folder")
        if path.is_dir() and not ledger.exists() and any(path.iterdir()):
            raise UsageError(
                f"`{path}` is not empty and not a run folder",
                hint="give another --out",
            )
        path.mkdir(parents=True, exist_ok=True)
        self._done: dict[str, StageDone] = {}
        if ledger.exists():
            self._done = self._read_ledger(ledger)
        else:
            self._write_ledger()

    @staticmethod
    def _read_ledger(ledger: Path) -> dict[str, StageDone]:
        try:
            data = json.loads(ledger.read_text(encoding="utf-8"))
            return {name: StageDone.from_dict(entry) for name, entry in data["stages"].items()}
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise SurgeonError(
                f"`{ledger}` cannot be read: {error}", hint="give another --out"
            ) from error

    def _write_ledger(self) -> None:
        stages = {name: done.to_dict() for name, done in self._done.items()}
        data = {"schema": "surgeon.stages/1", "surgeon": __version__, "stages": stages}
        write_text(self.path / self.LEDGER, json.dumps(data, indent=2))

    def file(self, stage: str) -> Path:
        """Where a stage's record is kept."""
        return self.path / f"{stage}.json"

    def stage(
        self,
        name: str,
        inputs: Any,
        kind: type[R],
        compute: Callable[[], R],
        intact: Callable[[R], bool] = lambda record: True,
    ) -> tuple[R, StageDone, bool]:
        """The stage's record: the stored one if it was made from `inputs`, else a new one.

        Args:
            name: of the stage; its record is `<name>.json`.
            inputs: JSON value of everything that decides the result.
            kind: type of the record.
            compute: makes the record.
            intact: whether what a stored record describes outside itself is still there.

        Returns:
            The record, its ledger entry, and whether it was taken from an earlier run.
        """
        key = digest({"surgeon": __version__, "stage": name, "inputs": inputs})
        stored = self._stored(name, key, kind)
        if stored is not None and intact(stored):
            return stored, self._done[name], True
        if self._done.pop(name, None) is not None:
            self._write_ledger()
        started = time.monotonic()
        record = compute()
        text = record.to_json()
        write_text(self.file(name), text)
        self._done[name] = StageDone(
            key=key,
            sha256=hashlib.sha256(text.encode()).hexdigest(),
            seconds=round(time.monotonic() - started, 3),
        )
        self._write_ledger()
        return record, self._done[name], False

    def _stored(self, name: str, key: str, kind: type[R]) -> R | None:
        done = self._done.get(name)
        if done is None or done.key != key or not self.file(name).exists():
            return None
        text = self.file(name).read_text(encoding="utf-8")
        if hashlib.sha256(text.encode()).hexdigest() != done.sha256:
            return None
        return kind.from_dict(json.loads(text))
