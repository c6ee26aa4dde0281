"""The chain: inspect, probe, select, duplicate, verify, check, cost. Where the stages meet.

No stage's work is done here. Each stage's record lands in the run folder before the next
one starts, so a run that was stopped goes on where it was.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from surgeon.block import Block
from surgeon.calibration import find_prompts
from surgeon.checkpoint.guard import refuse_large
from surgeon.checkpoint.inspect import Inspection, inspect
from surgeon.checkpoint.manifest import Manifest, read_manifest
from surgeon.checkpoint.rewrite import duplicate
from surgeon.checkpoint.store import Checkpoint
from surgeon.cost import Cost, measure_cost
from surgeon.evals import quick
from surgeon.evals.check import check
from surgeon.evals.result import CheckResult
from surgeon.hub import Source
from surgeon.models import choose_device, choose_dtype, load_model, load_tokenizer, stored_dtype
from surgeon.outcome import Conclusion, Outcome, StageSummary
from surgeon.paired import Verdict
from surgeon.plan import LayerPlan
from surgeon.probing.engine import ProbeResult, probe
from surgeon.recipe import Recipe
from surgeon.record import Record
from surgeon.report.costs import cost_line
from surgeon.report.records import ROWS_NAME
from surgeon.report.sweep_write import write_sweep
from surgeon.report.tables import verdict_line
from surgeon.report.write import write_reports
from surgeon.runs import RunFolder, write_text
from surgeon.score import get_scorer
from surgeon.selection import Selection, propose, select, take_first
from surgeon.sweeping.result import SweepResult
from surgeon.sweeping.selecting import selection_from
from surgeon.sweeping.sweep import sweep
from surgeon.verification.checks import verify
from surgeon.verification.result import Verification

R = TypeVar("R", bound=Record)

Report = Callable[[str, int, int], None]
"""Progress callback `(stage, done, total)`."""

Say = Callable[[StageSummary], None]
"""Called once a stage, when it is done."""


def run(
    recipe: Recipe,
    source: Source,
    folder: Path,
    *,
    keep: bool = False,
    report: Report = lambda stage, done, total: None,
    say: Say = lambda stage: None,
) -> Outcome:
    """Run a recipe in its folder, taking finished stages as they are.

    Args:
        recipe: what to do.
        source: the model, resolved.
        folder: new, or the folder of an earlier run of any recipe.
        keep: duplicate the best measured block even if none gained enough.
        report: progress callback within a stage.
        say: called with each stage's summary when it is done.

    Example:
        >>> import surgeon
        >>> from pathlib import Path
        >>> quickly = {"select.refine": "false", "cost.enabled": "false"}
        >>> recipe = surgeon.load_recipe("demo", quickly)
        >>> outcome = surgeon.run(recipe, surgeon.resolve(recipe.model), Path("runs/mine"))
        >>> outcome.conclusion, outcome.model.name
        ('improved', 'model')

    Raises:
        Refused: a guard said no; nothing was written.
        SurgeonError: a stage failed; finished stages are kept.
    """
    return _Run(recipe, source, folder, keep, report, say).outcome()


def judge_names(recipe: Recipe, source: Source) -> tuple[Checkpoint, list[str]]:
    """Everything that can be refused before a weight is read or a byte is written.

    Returns:
        The opened checkpoint, and the guard's warnings.

    Raises:
        Refused: by a guard.
        UnknownName: a scorer or task that does not exist.
    """
    checkpoint = Checkpoint.open(source.path)
    warnings = refuse_large(checkpoint)
    for scorer in recipe.probe.scorers:
        get_scorer(scorer)
    quick.find_tasks([recipe.select.task, *recipe.check.tasks])
    return checkpoint, warnings


class _Run:
    """The stages of one run and what they share."""

    def __init__(
        self,
        recipe: Recipe,
        source: Source,
        folder: Path,
        keep: bool,
        report: Report,
        say: Say,
    ):
        self.recipe, self.source, self.keep = recipe, source, keep
        self.report, self.say = report, say
        self.checkpoint, self.warnings = judge_names(recipe, source)
        self.prompts = find_prompts(
            recipe.probe.prompts, limit=recipe.probe.limit, seed=recipe.seed
        )
        self.device = choose_device(recipe.device)
        self.dtype = choose_dtype(
            recipe.dtype, stored_dtype(self.checkpoint.config), self.device.value
        )
        self.identity = self.checkpoint.identity()
        self.folder = RunFolder(folder)
        self.stages: list[StageSummary] = []
        write_text(folder / "recipe.yaml", recipe.to_yaml())

    def outcome(self) -> Outcome:
        """All stages in order, and what they came to."""
        self._stage("inspect", {}, Inspection, lambda: inspect(self.checkpoint), _say_inspection)
        selection = self._select(self._probe())
        plan = self._plan(selection)
        verdict = self._save_and_check(plan) if plan else selection.verdict
        cost = self._cost(plan) if plan else None
        outcome = Outcome(
            recipe=self.recipe,
            source=self.source,
            folder=self.folder.path,
            stages=tuple(self.stages),
            selection=selection,
            plan=plan,
            model=self.model if plan else None,
            verdict=verdict,
            conclusion=_conclude(plan, verdict),
            warnings=tuple(self.warnings),
            cost=cost,
        )
        write_text(self.folder.file("run"), outcome.to_json())
        write_reports(self.folder.path)
        return outcome

    @property
    def model(self) -> Path:
        """Where the new checkpoint goes."""
        return self.folder.path / "model"

    def _stage(
        self,
        name: str,
        inputs: dict[str, Any],
        kind: type[R],
        compute: Callable[[], R],
        text: Callable[[R], str],
        intact: Callable[[R], bool] = lambda record: True,
    ) -> R:
        everything = {"model": self.identity, "dtype": self.dtype.value, **inputs}
        record, done, reused = self.folder.stage(name, everything, kind, compute, intact)
        summary = StageSummary(name=name, text=text(record), seconds=done.seconds, reused=reused)
        self.stages.append(summary)
        self.say(summary)
        return record

    @cached_property
    def _probe_inputs(self) -> dict[str, Any]:
        step = self.recipe.probe.model_dump(mode="json")
        return {"probe": step, "prompts": self.prompts.digest, "seed": self.recipe.seed}

    def _probe(self) -> ProbeResult:
        step = self.recipe.probe

        def compute() -> ProbeResult:
            return probe(
                self.source.path,
                self.prompts,
                scorers=step.scorers,
                sizes=step.sizes,
                device=self.recipe.device,
                dtype=self.recipe.dtype,
                seed=self.recipe.seed,
                report=self.report,
            )

        return self._stage("probe", self._probe_inputs, ProbeResult, compute, _say_probe)

    def _select(self, probed: ProbeResult) -> Selection:
        step = self.recipe.select
        # Selected blocks carry verdicts, and those depend on the margin of the check.
        margin = self.recipe.check.margin
        inputs = {**self._probe_inputs, "select": step.model_dump(mode="json"), "margin": margin}

        def compute() -> Selection:
            if swept is not None:
                return selection_from(swept, probed.rankings, step.min_gain)
            if not isinstance(step.candidates, dict):
                return take_first(probed.rankings)
            return select(
                propose(probed.rankings, step.candidates),
                self._compare,
                task=step.task,
                depth=self.checkpoint.depth,
                refine=step.refine,
                budget=step.budget,
                min_gain=step.min_gain,
            )

        swept = self._sweep(probed, inputs) if self.recipe.sweep else None
        inputs["sweep"] = self.recipe.sweep
        selection = self._stage("select", inputs, Selection, compute, lambda made: made.reason)
        self.__dict__.pop("_measurer", None)  # the stages that follow load models of their own
        return selection

    def _sweep(self, probed: ProbeResult, inputs: dict[str, Any]) -> SweepResult:
        step = self.recipe.select

        def compute() -> SweepResult:
            found = sweep(
                self.source.path,
                [step.task],
                sizes=self.recipe.probe.sizes,
                split="select",
                documents=step.documents,
                against=probed.rankings,
                ledger=self.folder.path / "sweep.jsonl",
                margin=self.recipe.check.margin,
                seed=self.recipe.seed,
                device=self.recipe.device,
                dtype=self.recipe.dtype,
                name=self.source.name,
                report=self.report,
            )
            write_sweep(found, self.folder.path)
            return found

        return self._stage("sweep", inputs, SweepResult, compute, _say_sweep)

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
        plans = [LayerPlan.duplicate(self.checkpoint.depth, block) for block in blocks]
        verdicts = self._measurer.compare(
            plans, candidates=self.recipe.select.budget, margin=self.recipe.check.margin
        )
        return dict(zip(blocks, verdicts, strict=True))

    def _plan(self, selection: Selection) -> LayerPlan | None:
        block = selection.winner
        if block is None and self.keep and selection.best:
            block = selection.best.block
        return LayerPlan.duplicate(self.checkpoint.depth, block) if block else None

    def _save_and_check(self, plan: LayerPlan) -> Verdict:
        made_from = {"plan": str(plan)}

        def saved(manifest: Manifest) -> bool:
            return self.model.is_dir() and read_manifest(self.model) == manifest

        self._stage(
            "duplicate",
            made_from,
            Manifest,
            lambda: duplicate(self.checkpoint, plan, self.model, force=True),
            _say_duplicate,
            saved,
        )
        self._stage(
            "verify",
            made_from,
            Verification,
            lambda: verify(self.model, base=self.source.path, logits=True),
            _say_verify,
        )
        step, rows = self.recipe.check, self.folder.path / ROWS_NAME

        def judge() -> CheckResult:
            return check(
                self.source.path,
                self.model,
                list(step.tasks),
                split="confirm",
                limit=step.documents,
                margin=step.margin,
                plan=step.plan,
                alpha=1 - step.level,
                seed=self.recipe.seed,
                device=self.recipe.device,
                dtype=self.recipe.dtype,
                ledger=self.folder.path / "candidates.jsonl",
                rows_to=rows,
                report=self.report,
            )

        inputs = {**made_from, "check": step.model_dump(mode="json"), "seed": self.recipe.seed}
        checked = self._stage(
            "check", inputs, CheckResult, judge, _say_check, lambda made: rows.is_file()
        )
        return checked.verdict

    def _cost(self, plan: LayerPlan) -> Cost | None:
        step = self.recipe.cost
        if not step.enabled:
            return None
        numbers = step.model_dump(exclude={"enabled"})

        def compute() -> Cost:
            return measure_cost(
                self.source.path,
                self.model,
                **numbers,
                device=self.device.value,
                dtype=self.dtype.value,
                report=self.report,
            )

        inputs = {"plan": str(plan), "cost": numbers, "device": self.device.value}
        # What failed for want of memory may work the next time.
        return self._stage(
            "cost", inputs, Cost, compute, cost_line, lambda made: made.missing is None
        )


def _conclude(plan: LayerPlan | None, verdict: Verdict | None) -> Conclusion:
    return verdict.verdict if plan and verdict else "no winner"


def _say_inspection(made: Inspection) -> str:
    return (
        f"{made.model_type}, {made.depth} layers, {made.parameters.total / 1e6:,.1f} M parameters"
    )


def _say_probe(made: ProbeResult) -> str:
    firsts = [f"{r.scorer} {r.best.block}" for r in made.rankings if r.best]
    return f"{made.prompts.count} prompts; first choices: {', '.join(firsts)}"


def _say_sweep(made: SweepResult) -> str:
    best = made.effects[0]
    return (
        f"{len(made.effects)} blocks on {made.documents} documents; "
        f"best {best.label}, {best.difference:+.3f}"
    )


def _say_duplicate(made: Manifest) -> str:
    return f"layers {made.plan}; {made.total_bytes / 1e6:,.1f} MB written"


def _say_verify(made: Verification) -> str:
    return made.summary


def _say_check(made: CheckResult) -> str:
    return verdict_line(made.verdict)
