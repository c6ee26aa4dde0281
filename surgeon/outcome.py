"""`Outcome`: what one whole run came to; `Pushed`: what sending its model to the Hub did."""

from pathlib import Path
from typing import ClassVar, Literal

from surgeon.cost.result import Cost
from surgeon.hub import Source, Uploaded
from surgeon.paired import Verdict
from surgeon.plan import LayerPlan
from surgeon.recipe import Recipe
from surgeon.record import Record
from surgeon.selection import Selection

Conclusion = Literal["improved", "worse", "equivalent", "undecided", "no winner"]


class StageSummary(Record):
    """One line of a run: what a stage came to, and how long it took."""

    name: str
    text: str
    seconds: float
    reused: bool


class Outcome(Record):
    """What a run came to.

    `conclusion` is the verdict on documents that chose nothing, or `no winner`; then `plan`
    and `model` are None, and `verdict` is that of the best block on the `select` split. `cost` is
    None where it was not asked for, or no model was saved.

    Example:
        >>> import json, surgeon
        >>> from pathlib import Path
        >>> text = Path("runs/demo/run.json").read_text()
        >>> outcome = surgeon.Outcome.from_dict(json.loads(text))
        >>> outcome.conclusion, outcome.meets("not-worse")
        ('improved', True)
    """

    SCHEMA: ClassVar[str] = "surgeon.run/1"

    recipe: Recipe
    source: Source
    folder: Path
    stages: tuple[StageSummary, ...]
    selection: Selection
    plan: LayerPlan | None
    model: Path | None
    verdict: Verdict | None
    conclusion: Conclusion
    warnings: tuple[str, ...]
    cost: Cost | None = None

    @property
    def seconds(self) -> float:
        """Time of all stages, those of earlier runs included."""
        return sum(stage.seconds for stage in self.stages)

    def meets(self, requirement: str) -> bool:
        """Whether a model was saved and its verdict meets `improved` or `not-worse`."""
        if self.plan is None or self.verdict is None:
            return False
        if requirement == "improved":
            return self.conclusion == "improved"
        return self.verdict.not_worse


class Pushed(Record):
    """What a push came to; `upload` is None where it was a dry run.

    Example:
        >>> import surgeon
        >>> from pathlib import Path
        >>> pushed = surgeon.push(Path("runs/demo"), "me/upgraded", dry_run=True)
        >>> "model.safetensors" in pushed.files, pushed.upload
        (True, None)
    """

    SCHEMA: ClassVar[str] = "surgeon.push/1"

    folder: Path
    repository: str
    verdict: str
    verified: str
    files: dict[str, int]
    upload: Uploaded | None


class Written(Record):
    """Files that a command wrote."""

    SCHEMA: ClassVar[str] = "surgeon.report/1"

    files: tuple[Path, ...]
