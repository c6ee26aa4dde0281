"""The chain: inspect, probe, select, duplicate, verify, check. Where the stages meet.

No stage's work is done here. Each stage's record lands in the run folder before the next
one starts, so a run that was stopped goes on where it was.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from surgeon.block import Block
from surgeon.checkpoint.guard import refuse_large
from surgeon.checkpoint.inspect import Inspection, inspect
from surgeon.checkpoint.manifest import MANIFEST, Manifest
from surgeon.checkpoint.rewrite import duplicate
from surgeon.checkpoint.store import Checkpoint
from surgeon.evals import quick
from surgeon.hub import Source
from surgeon.models import choose_device, choose_dtype, load_model, load_tokenizer, stored_dtype
from surgeon.paired import Verdict
from surgeon.plan import LayerPlan
from surgeon.probe.engine import ProbeResult, probe
from surgeon.probe.prompts import Prompts, load_prompts
from surgeon.recipe import Recipe
from surgeon.record import Record
from surgeon.runs import RunFolder, write_text
from surgeon.selection import Selection, propose, select, take_first
from surgeon.verify import Verification, verify

R = TypeVar("R", bound=Record)

Report = Callable[[str, int, int], None]
"""Progress callback `(stage, done, total)`."""

Conclusion = Literal["improved", "worse", "equivalent", "undecided", "no winner"]


class StageSummary(Record):
    """One line of a run: what a stage came to, and how long it took."""

    name: str
    text: str
    seconds: float
    reused: bool


class Outcome(Record):
    """What a run came to; `plan`, `model` and `verdict` are None where nothing was saved."""

    SCHEMA = "surgeon.run/1"

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


def run(
    recipe: Recipe,
    source: Source,
    folder: Path,
    *,
    keep: bool = False,
    report: Report = lambda stage, done, total: None,
) -> Outcome:
    """Run a recipe in its folder, taking finished stages as they are.

    Args:
        recipe: what to do.
        source: the model, resolved.
        folder: new, or the folder of an earlier run of any recipe.
        keep: duplicate the best measured block even if none gained enough.
        report: progress callback.

    Raises:
        Refused: a guard said no; nothing was written.
        SurgeonError: a stage failed; finished stages are kept.
    """
    return _Run(recipe, source, folder, keep, report).outcome()


class _Run:
    """The stages of one run and what they share."""

    def __init__(self, recipe: Recipe, source: Source, folder: Path, keep: bool, report: Report):
        self.recipe, self.source, self.keep, self.report = recipe, source, keep, report
        self.checkpoint = Checkpoint.open(source.path)
        self.warnings = refuse_large(self.checkpoint)
        # Names are judged before anything is computed or written.
        self.prompts: Prompts = load_prompts(recipe.probe.prompts, seed=recipe.seed)
        quick.find_tasks([recipe.select.task, *recipe.check.tasks])
        self.device = choose_device(recipe.device)
        self.dtype = choose_dtype(
            recipe.dtype, stored_dtype(self.checkpoint.config), self.device.value
        )
        self.identity = self.checkpoint.identity()
        self.folder = RunFolder(folder)
        self.stages: list[StageSummary] = []
        write_text(folder / "recipe.yaml", recipe.to_yaml())

    def outcome(self) -> Outcome:
        """All stages in order."""
        self._stage("inspect", {}, Inspection, lambda: inspect(self.checkpoint), _say_inspect)
        probed = self._stage("probe", self._probe_inputs(), ProbeResult, self._probe, _say_probe)
        selection = self._select(probed)
        plan = self._plan(selection)
        verdict = None if plan is None else self._save_and_check(plan)
        outcome = Outcome(
            recipe=self.recipe,
            source=self.source,
            folder=self.folder.path,
            stages=tuple(self.stages),
            selection=selection,
            plan=plan,
            model=None if plan is None else self.model_path,
            verdict=verdict,
            conclusion=_conclude(selection, verdict),
            warnings=tuple(self.warnings),
        )
        write_text(self.folder.file("run"), outcome.to_json())
        return outcome

    @property
    def model_path(self) -> Path:
        return self.folder.path / "model"

    def _stage(
        self,
        name: str,
        inputs: dict[str, Any],
        kind: type[R],
        compute: Callable[[], R],
        say: Callable[[R], str],
        intact: Callable[[R], bool] = lambda record: True,
    ) -> R:
        everything = {"model": self.identity, "dtype": self.dtype.value, **inputs}
        record, done, reused = self.folder.stage(name, everything, kind, compute, intact)
        self.stages.append(
            StageSummary(name=name, text=say(record), seconds=done.seconds, reused=reused)
        )
        self.report(name, 1, 1)
        return record

    def _probe_inputs(self) -> dict[str, Any]:
        step = self.recipe.probe.model_dump(mode="json")
        return {"probe": step, "prompts": self.prompts.digest, "seed": self.recipe.seed}

    def _probe(self) -> ProbeResult:
        return probe(
            self.source.path,
            self.prompts,
            scorers=self.recipe.probe.scorers,
            sizes=self.recipe.probe.sizes,
            device=self.device,
            dtype=self.dtype,
            seed=self.recipe.seed,
            report=self.report,
        )

    def _select(self, probed: ProbeResult) -> Selection:
        step = self.recipe.select
        inputs = {**self._probe_inputs(), "select": step.model_dump(mode="json")}

        def compute() -> Selection:
            if step.candidates == "top1":
                return take_first(probed.rankings)
            assert isinstance(step.candidates, dict)
            return select(
                propose(probed.rankings, step.candidates),
                self._compare,
                task=step.task,
                depth=self.checkpoint.depth,
                refine=step.refine,
                budget=step.budget,
                min_gain=step.min_gain,
            )

        return self._stage("select", inputs, Selection, compute, lambda s: s.reason)

    @cached_property
    def _measurer(self) -> quick.Measurer:
        step = self.recipe.select
        return quick.Measurer(
            load_model(self.source.path, device=self.device.value, dtype=self.dtype.value),
            load_tokenizer(self.source.path),
            step.task,
            split="select",
            documents=step.documents,
            seed=self.recipe.seed,
            report=self.report,
        )

    def _compare(self, blocks: Sequence[Block]) -> Mapping[Block, Verdict]:
        depth = self.checkpoint.depth
        plans = [LayerPlan.duplicate(depth, block) for block in blocks]
        return dict(zip(blocks, self._measurer.compare(plans), strict=True))

    def _plan(self, selection: Selection) -> LayerPlan | None:
        block = selection.winner
        if block is None and self.keep:
            block = selection.best
        return None if block is None else LayerPlan.duplicate(self.checkpoint.depth, block)

    def _save_and_check(self, plan: LayerPlan) -> Verdict:
        changed = {"plan": str(plan)}
        self._stage(
            "duplicate", changed, Manifest, lambda: self._duplicate(plan), _say_duplicate,
            self._saved,
        )  # fmt: skip
        self._stage("verify", changed, Verification, self._verify, _say_verify)
        step = self.recipe.check.model_dump(mode="json")
        inputs = {**changed, "check": step, "seed": self.recipe.seed}
        return self._stage("check", inputs, quick.CheckResult, self._check, _say_check).verdict
