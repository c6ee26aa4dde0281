"""What a sweep runs on another machine: a worker that is made, checked and asked by data.

Nothing here knows what carries the calls. A deliberate error goes back as data too, because
an exception that is pickled loses its hint, or cannot be read at all.
"""

import pickle
import platform
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from surgeon import errors
from surgeon.errors import SurgeonError
from surgeon.evals.engine import Cost
from surgeon.evals.harness import versions
from surgeon.sweeping.ledger import Line, Unit
from surgeon.sweeping.work import Setting, Worker
from surgeon.version import __version__


@dataclass(frozen=True)
class Failed:
    """A `SurgeonError` as data."""

    kind: str
    message: str
    hint: str | None

    @classmethod
    def of(cls, error: SurgeonError) -> "Failed":
        """The data of an error."""
        return cls(type(error).__name__, str(error), error.hint)

    @property
    def error(self) -> SurgeonError:
        """The error that the data stands for, of the same class."""
        kind: type[SurgeonError] = getattr(errors, self.kind, SurgeonError)
        found = kind.__new__(kind)  # their constructors take other arguments
        SurgeonError.__init__(found, self.message, self.hint)
        return found


@dataclass(frozen=True)
class Answer:
    """The rows of a unit and what they cost."""

    lines: list[Line]
    cost: Cost
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Errand:
    """What a remote worker is started with.

    Args:
        setting: what to load.
        inputs: `Setting.inputs` of who asks; rows of other inputs must not go to its ledger.
    """

    setting: Setting
    inputs: dict[str, Any]

    def versions(self) -> dict[str, str]:
        """The versions of who asks."""
        return {"surgeon": __version__, **self.inputs["versions"]}

    def packed(self) -> bytes:
        """As bytes: another version of `surgeon` could not read it, and must say so first."""
        return pickle.dumps(self)


class RemoteWorker:
    """A worker of a sweep in a process of its own; one thread, at most one GPU."""

    def __init__(self) -> None:
        self._worker: Worker | None = None
        self._told = Cost()

    def start(self, expected: Mapping[str, str], errand: bytes) -> Failed | None:
        """Load the model, or say why rows from here would be wrong or impossible.

        Args:
            expected: versions of who asks.
            errand: a packed `Errand`.
        """
        try:
            _same_versions(expected)
            self._load(pickle.loads(errand))
        except SurgeonError as error:
            return Failed.of(error)
        return None

    def _load(self, errand: Errand) -> None:
        setting = errand.setting
        for folder in filter(None, (setting.model, setting.include_path)):
            if not Path(folder).is_dir():
                raise SurgeonError(
                    f"node `{platform.node()}` cannot read the folder `{folder}`",
                    hint="put it on a disk that all nodes of the cluster share",
                )
        torch.set_num_threads(1)
        if setting.device.startswith("cuda"):
            setting = replace(setting, device="cuda:0")  # the only one this process sees
        tasks = setting.load_tasks()
        here = setting.inputs(tasks)
        other = [name for name, value in errand.inputs.items() if here[name] != value]
        if other:
            raise SurgeonError(
                f"node `{platform.node()}` has another {' and '.join(other)} for "
                f"`{setting.model}`, so its rows would be of something else",
                hint="give all nodes one shared folder, or copies with the same file times",
            )
        self._worker = Worker(setting, tasks)

    def answer(self, unit: Unit) -> Answer | Failed:
        """The rows of a unit."""
        assert self._worker is not None, "start comes first"
        try:
            lines = self._worker.answer(unit)
        except SurgeonError as error:
            return Failed.of(error)
        before, self._told = self._told, replace(self._worker.cost)
        return Answer(lines, difference(self._told, before), tuple(self._worker.notes))


def _same_versions(expected: Mapping[str, str]) -> None:
    found = {"surgeon": __version__, **versions()}
    other = [
        f"{name} {found.get(name, 'missing')} instead of {version}"
        for name, version in expected.items()
        if found.get(name) != version
    ]
    if other:
        raise SurgeonError(
            f"node `{platform.node()}` has {', '.join(other)}",
            hint="install the same versions on every node: rows of different ones do not mix",
        )


def difference(after: Cost, before: Cost) -> Cost:
    """What was spent in between; `most_states` is a maximum and stays one."""
    spent = {each.name: getattr(after, each.name) - getattr(before, each.name) for each in _SUMS}
    return Cost(**spent, most_states=after.most_states)


def total(one: Cost, other: Cost) -> Cost:
    """What two spent together; `most_states` is a maximum and stays one."""
    spent = {each.name: getattr(one, each.name) + getattr(other, each.name) for each in _SUMS}
    return Cost(**spent, most_states=max(one.most_states, other.most_states))


_SUMS = [each for each in fields(Cost) if each.name != "most_states"]
