"""Working through units in this process, beside any other process on the same ledger."""

import time
from collections.abc import Callable, Container, Sequence
from typing import Protocol

from surgeon.evals.engine import Cost
from surgeon.sweeping.ledger import Ledger, Unit
from surgeon.sweeping.work import Worker

POLL_SECONDS = 0.2

Stop = Callable[[], bool]
"""Asked after each unit whether to stop."""


class Executor(Protocol):
    """Sees to it that the rows of units are in the ledger."""

    workers: int
    evaluations: int

    @property
    def cost(self) -> Cost:
        """Work done for this call."""
        ...

    @property
    def notes(self) -> list[str]:
        """What a reader of the rows must know."""
        ...

    def finish(self, ledger: Ledger, units: Sequence[Unit], stop: Stop) -> None:
        """Return when every row of every unit is known to the ledger, or when told to stop.

        Raises:
            SurgeonError: a unit cannot be answered.
        """
        ...

    def close(self) -> None:
        """Let go of what is held."""
        ...


class LocalExecutor:
    """Answers units in this process, one after the other.

    A unit that another process has claimed is left to it; when nothing else is left to do,
    its rows are waited for, and taken over if that process dies.

    Args:
        start: makes the worker; not called where the ledger knows everything already.
    """

    workers = 1

    def __init__(self, start: Callable[[], Worker]):
        self._start = start
        self._worker: Worker | None = None
        self.evaluations = 0

    @property
    def cost(self) -> Cost:
        """Work done by this process."""
        return self._worker.cost if self._worker else Cost()

    @property
    def notes(self) -> list[str]:
        """What a reader of the rows must know."""
        return list(self._worker.notes) if self._worker else []

    def finish(self, ledger: Ledger, units: Sequence[Unit], stop: Stop) -> None:
        """Answer units, or wait for who does, until all rows are known or `stop` says so."""
        left = [unit for unit in units if ledger.missing(unit)]
        while left:
            moved = False
            for unit in left:
                with ledger.claim(unit) as mine:
                    if mine and (missing := ledger.missing(unit)):
                        self._answer(ledger, unit, missing)
                        moved = True
                if stop():
                    return
            left = [unit for unit in left if ledger.missing(unit)]
            if left and not moved:
                time.sleep(POLL_SECONDS)
                ledger.refresh()

    def _answer(self, ledger: Ledger, unit: Unit, missing: Container[str]) -> None:
        if self._worker is None:
            self._worker = self._start()
        # All documents of the unit, whatever is missing: other batches round otherwise.
        plans = tuple(plan for plan in unit.plans if plan in missing)
        self.evaluations += ledger.append(self._worker.answer(Unit(plans, unit.documents)))

    def close(self) -> None:
        """Nothing outlives the call."""
