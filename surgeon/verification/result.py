"""What a verification found."""

from typing import ClassVar, Literal

from surgeon.plan import LayerPlan
from surgeon.record import Record

State = Literal["passed", "failed", "not measured"]


class Check(Record):
    """One question and its answer.

    Args:
        name: `files`, `digests`, `tensors`, `structure`, `keys` or `logits`.
        state: `not measured` where the means were missing; `detail` says which.
        detail: what was compared, or what differs.
    """

    name: str
    state: State
    detail: str


class Verification(Record):
    """All checks of one checkpoint.

    Args:
        folder: name of the checked folder.
        source: id of the model it was made from, if known.
        plan: from that model to this one, if known.
        checks: in the order they were made.
    """

    SCHEMA: ClassVar[str] = "surgeon.verify/1"

    folder: str
    source: str | None
    plan: LayerPlan | None
    checks: list[Check]

    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        return all(check.state != "failed" for check in self.checks)

    @property
    def failures(self) -> list[Check]:
        """The checks that failed."""
        return [check for check in self.checks if check.state == "failed"]

    @property
    def summary(self) -> str:
        """One line: what passed, what failed, what was not measured."""
        parts = []
        for state in ("failed", "passed", "not measured"):
            names = [check.name for check in self.checks if check.state == state]
            if names:
                parts.append(f"{state}: {', '.join(names)}")
        return "; ".join(parts)
