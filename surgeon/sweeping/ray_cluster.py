"""Units of work on a Ray cluster: one worker a CPU, or a GPU, that keeps its model loaded.

Workers are actors that Ray never restarts: a lost one is replaced here, on whatever node
has room, and its unit is given to another. So a process keeps the GPU it was given, a node
may come or go at any time, and how often a unit is tried is counted in one place.

This process alone writes the ledger. It claims a unit before it sends it, so that other
processes on the same ledger share the work, and sends one unit to a worker at a time: no
more is lost with a worker, or computed for nothing after a stop.

If the head of the cluster dies, Ray ends this process after a minute; a ledger given by
name keeps what was measured, and the same command goes on from there.

A worker has one thread. Rows are bit for bit those of a local run with one thread, and
those of a local run with more threads but for the rounding of log-likelihoods.
"""

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from surgeon.errors import SurgeonError
from surgeon.evals.engine import Cost
from surgeon.sweeping.ledger import Ledger, Unit
from surgeon.sweeping.local import Stop
from surgeon.sweeping.ray_connection import connect
from surgeon.sweeping.remote import Answer, Errand, Failed, RemoteWorker, total
from surgeon.sweeping.work import Setting
from surgeon.version import __version__

POLL_SECONDS = 1.0

ASK_SECONDS = 10.0
"""How often to ask whether to stop while nothing new is known."""

RETRIES = 3
"""How often a unit is given to another worker after one was lost with it."""

START_SECONDS = 600
"""How long to wait while no worker is ready: nodes may be starting, models are loaded."""

ROOM_SECONDS = 60
"""How long to wait for a node that has room for a worker at all."""

OVERHEAD = 2**30
"""Bytes of a worker process before it loads anything."""


@dataclass(frozen=True, eq=False)
class _Flight:
    """A unit that a worker answers, and the claim on it."""

    unit: Unit
    actor: Any
    claim: ExitStack


class RayExecutor:
    """Answers units on a Ray cluster.

    Args:
        setting: what each worker loads.
        inputs: `Setting.inputs` here; a worker that finds something else is refused.
        address: `HOST:PORT` of the head of a running cluster, or `auto`.

    Raises:
        SurgeonError: ray is not installed, or there is no such cluster.
    """

    def __init__(self, setting: Setting, inputs: dict[str, Any], address: str):
        errand = Errand(setting, inputs)
        self._orders = (errand.versions(), errand.packed())
        self._needs = _needs(setting, inputs)
        self.workers = self.evaluations = 0
        self.cost = Cost()
        self._notes: dict[str, None] = {}
        self._starting: dict[Any, Any] = {}
        self._idle: list[Any] = []
        self._flights: dict[Any, _Flight] = {}
        self._dead_at_start = 0
        self._losses = 0
        self._ray, self._ours = connect(address)
        lost = self._ray.exceptions
        self._lost = (
            lost.RayActorError,
            lost.WorkerCrashedError,
            lost.NodeDiedError,
            lost.OutOfMemoryError,
            lost.ObjectLostError,
        )
        self._actor = self._ray.remote(RemoteWorker).options(
            num_cpus=self._needs["CPU"],
            num_gpus=self._needs.get("GPU", 0),
            memory=self._needs["memory"],
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy="SPREAD",
        )

    @property
    def notes(self) -> list[str]:
        """What a reader of the rows must know."""
        lost = f"workers lost while they measured: {self._losses}; others did their part"
        return [*self._notes, *([lost] if self._losses else [])]

    def finish(self, ledger: Ledger, units: Sequence[Unit], stop: Stop) -> None:
        """Have units answered, or wait for who does, until all rows are known or told to stop.

        Raises:
            SurgeonError: what a worker says; a node that must not take part; a unit that was
                lost too often; a cluster without room.
        """
        waiting = [unit for unit in units if ledger.missing(unit)]
        losses: Counter[Unit] = Counter()
        asked = ready = time.monotonic()
        try:
            while waiting or self._flights:
                self._staff(len(waiting) + len(self._flights))
                news = self._send(ledger, waiting)
                news = self._land(ledger, waiting, losses) or news
                if not self._idle and not self._flights:  # others may do it all
                    ledger.refresh()
                    left = [unit for unit in waiting if ledger.missing(unit)]
                    news = news or len(left) < len(waiting)
                    waiting[:] = left
                now = time.monotonic()
                if news or now - asked > ASK_SECONDS:
                    asked = now
                    if stop():
                        return
                if self._idle or self._flights:
                    ready = now
                self._give_up(now - ready)
        finally:
            for flight in self._flights.values():
                flight.claim.close()
                self._dismiss(flight.actor)
            self._flights.clear()

    def _seats(self) -> int:
        """How many workers the nodes that are alive have room for."""
        return sum(
            int(min(node["Resources"].get(name, 0) // much for name, much in self._needs.items()))
            for node in self._ray.nodes()
            if node["Alive"]
        )

    def _staff(self, units: int) -> None:
        """Start workers, as many as there is room and work for; at least one may be asked for."""
        here = len(self._starting) + len(self._idle) + len(self._flights)
        if here >= units:
            return
        for _ in range(here, max(1, min(units, self._seats()))):
            actor = self._actor.remote()
            self._starting[actor.start.remote(*self._orders)] = actor

    def _send(self, ledger: Ledger, waiting: list[Unit]) -> bool:
        """Give each idle worker a unit that nobody else works on; says if others answered one."""
        news = False
        for unit in list(waiting):
            if not self._idle:
                break
            with ExitStack() as claim:
                if not claim.enter_context(ledger.claim(unit)):
                    continue
                waiting.remove(unit)
                missing = ledger.missing(unit)
                if not missing:
                    news = True
                    continue
                # All documents of the unit, whatever is missing: other batches round otherwise.
                plans = tuple(plan for plan in unit.plans if plan in missing)
                actor = self._idle.pop()
                reference = actor.answer.remote(Unit(plans, unit.documents))
                self._flights[reference] = _Flight(unit, actor, claim.pop_all())
        return news

    def _land(self, ledger: Ledger, waiting: list[Unit], losses: Counter[Unit]) -> bool:
        """Wait for a worker that is ready or has an answer; says whether rows came in time."""
        pending = [*self._flights, *self._starting]
        if not pending:
            time.sleep(POLL_SECONDS)
            return False
        news = False
        done, _ = self._ray.wait(pending, timeout=POLL_SECONDS)
        for reference in done:
            if reference in self._starting:
                self._welcome(reference)
                continue
            flight = self._flights.pop(reference)
            self._idle.append(flight.actor)
            with flight.claim:
                try:
                    answer = self._get(reference)
                except self._lost as error:
                    self._dismiss(self._idle.pop())
                    losses[flight.unit] += 1
                    self._losses += 1
                    if losses[flight.unit] > RETRIES:
                        raise _lost_too_often(losses[flight.unit], error) from error
                    waiting.insert(0, flight.unit)
                    continue
                self._count(answer, ledger.append(answer.lines))
                news = True
        return news

    def _count(self, answer: Answer, rows: int) -> None:
        self.evaluations += rows
        self.cost = total(self.cost, answer.cost)
        self._notes.update(dict.fromkeys(answer.notes))

    def _welcome(self, reference: Any) -> None:
        """Take in a worker that has loaded its model."""
        self._idle.append(self._starting.pop(reference))
        try:
            self._get(reference)
        except self._lost as error:
            self._dismiss(self._idle.pop())
            self._dead_at_start += 1
            if self._dead_at_start > RETRIES * max(1, self._seats()):
                raise _lost_too_often(self._dead_at_start, error) from error
            return
        self._dead_at_start = 0
        self.workers = max(self.workers, len(self._idle) + len(self._flights))

    def _get(self, reference: Any) -> Any:
        """What a worker returned, or its error as if it had happened here."""
        lost = self._ray.exceptions
        try:
            found = self._ray.get(reference)
        except (lost.RayTaskError, lost.RayActorError) as error:
            if "failed to import on the worker" in str(error):
                raise SurgeonError(
                    f"a node of the cluster cannot import surgeon {__version__}",
                    hint="install the same version on every node",
                ) from error
            if isinstance(error, lost.RayTaskError):
                raise error.cause from error
            raise
        if isinstance(found, Failed):
            raise found.error
        return found

    def _give_up(self, seconds: float) -> None:
        """Raise if no worker was ready for too long."""
        if seconds < ROOM_SECONDS or (seconds < START_SECONDS and self._seats()):
            return
        total, free = self._ray.cluster_resources(), self._ray.available_resources()
        needs = ", ".join(
            f"{name} {_amount(name, much)} of {_amount(name, total.get(name, 0))} "
            f"({_amount(name, free.get(name, 0))} free)"
            for name, much in self._needs.items()
        )
        raise SurgeonError(
            f"no worker of the Ray cluster was ready for {seconds:.0f} s; one takes {needs}",
            hint="add nodes, stop other jobs, or run without --ray",
        )

    def _dismiss(self, actor: Any) -> None:
        self._ray.kill(actor, no_restart=True)

    def close(self) -> None:
        """Stop the workers and leave the cluster, which goes on."""
        for actor in (*self._starting.values(), *self._idle):
            self._dismiss(actor)
        self._starting.clear()
        self._idle.clear()
        if self._ours:
            self._ray.shutdown()


def _needs(setting: Setting, inputs: dict[str, Any]) -> dict[str, float]:
    """What a worker takes of its node, by Ray's names.

    Memory is asked for so that a node with many CPUs and little memory is not filled with
    more copies of the model than it can hold.
    """
    weights = sum(int(file["size"]) for file in inputs["model"].values())
    needs: dict[str, float] = {"CPU": 1, "memory": weights + setting.memory + OVERHEAD}
    if setting.device.startswith("cuda"):
        needs["GPU"] = 1
    return needs


def _amount(name: str, much: float) -> str:
    return f"{much / 2**30:.1f} GiB" if name == "memory" else f"{much:g}"


def _lost_too_often(times: int, error: Exception) -> SurgeonError:
    reason = str(error).strip().splitlines() or [type(error).__name__]
    return SurgeonError(
        f"workers of the Ray cluster died {times} times at the same work: {reason[0]}",
        hint="look for nodes that run out of memory; what was measured is kept with --ledger",
    )
