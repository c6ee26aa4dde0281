"""What a check hands on: verdicts, validity checks, cost, protocol. No torch in here."""

from typing import Any

from surgeon.paired import Verdict
from surgeon.record import Measured, Record


class Damage(Record):
    """Whether the right answers became plainly less likely, on the first documents.

    `drop` is the mean fall of the right answer's log-likelihood, in nats per answer token,
    each document's clipped to +-4; `interval` is its confidence sequence at `level`.
    """

    damaged: bool
    n: int
    drop: Measured
    interval: tuple[Measured, Measured]
    level: float
    limit: float


class TaskResult(Record):
    """One task of a check: its verdict, and what could make it something else than ability.

    The verdict is corrected for the number of tasks; `not_worse` is not, because only all
    tasks together claim it.
    """

    task: str
    verdict: Verdict
    not_worse: bool
    base_gold: Measured
    candidate_gold: Measured
    base_extraction_failure: Measured
    candidate_extraction_failure: Measured
    format_changed: bool


class Validity(Record):
    """What was verified before anything was concluded."""

    pairs: int
    hashes_agree: bool
    finite: bool
    control_documents: int
    control_flips: int
    duplicates_dropped: int
    weights: str


class CheckResult(Record):
    """A paired check of a candidate against its base.

    `verdict` is over all tasks together, each weighted as in `weights`; with one task it is
    that task's. A candidate that is `worse` on any task, or damaged, never meets a
    requirement. `trace` holds (documents, difference, lower, upper) at a few looks.

    Example:
        >>> import json, surgeon
        >>> from pathlib import Path
        >>> text = Path("runs/demo/check.json").read_text()
        >>> result = surgeon.CheckResult.from_dict(json.loads(text))
        >>> [task.task for task in result.tasks], result.documents <= result.budget
        (['cups'], True)
    """

    SCHEMA = "surgeon.check/1"

    base: str
    candidate: str
    plan: str | None
    verdict: Verdict
    tasks: tuple[TaskResult, ...]
    weights: dict[str, float]
    damage: Damage | None
    validity: Validity
    stopped: str
    documents: int
    budget: int
    seconds: float
    protocol: dict[str, Any]
    protocol_sha256: str
    cost: dict[str, float]
    versions: dict[str, str]
    candidates_tried: int
    flipped: dict[str, dict[str, tuple[int, ...]]]
    trace: tuple[tuple[int, Measured, Measured, Measured], ...]
    notes: tuple[str, ...] = ()

    @property
    def regressed(self) -> tuple[str, ...]:
        """Tasks on which the candidate is worse."""
        return tuple(each.task for each in self.tasks if each.verdict.verdict == "worse")

    @property
    def not_worse(self) -> bool:
        """Whether a loss of the margin or more is ruled out on every task."""
        damaged = self.damage is not None and self.damage.damaged
        every = (self.verdict.not_worse, *(each.not_worse for each in self.tasks))
        return not damaged and not self.regressed and all(every)

    def meets(self, requirement: str) -> bool:
        """Whether `improved` or `not-worse` is shown.

        `improved` also asks that no task is worse; `not-worse` that on every task a loss of
        the margin or more is ruled out.
        """
        if requirement == "improved":
            damaged = self.damage is not None and self.damage.damaged
            return self.verdict.verdict == "improved" and not self.regressed and not damaged
        return self.not_worse
