"""Measure layer plans in memory, on documents that choose; check a candidate, on others.

`Measurer` is for selection: it scores a base and many plans on one fixed set of documents.
`check` (in `check.py`) is for the claim: one candidate, fresh documents, a verdict.
"""

from collections.abc import Callable, Sequence
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from surgeon.errors import UnknownName, UsageError
from surgeon.evals.backends import EngineBackend
from surgeon.evals.check import check
from surgeon.evals.evaltask import EvalTask, Protocol
from surgeon.evals.harness import build, load_tasks
from surgeon.evals.result import CheckResult
from surgeon.evals.rows import Rows
from surgeon.paired import Verdict, compare
from surgeon.plan import LayerPlan
from surgeon.tasks import TASKS

__all__ = ["CheckResult", "Measurer", "check", "find_tasks", "measure"]

Report = Callable[[str, int, int], None]
"""Progress callback `(stage, done, total)`."""


def find_tasks(names: Sequence[str]) -> list[str]:
    """The names, if all are bundled tasks; needs nothing to be loaded.

    Raises:
        UnknownName: a name that is not; the message lists the names.
    """
    for name in names:
        if name not in TASKS:
            raise UnknownName("task", name, TASKS)
    return list(names)


class Measurer:
    """Scores layer plans of one loaded model on the same documents, as often as asked.

    Prompts and tokens are made once; plans asked for together share their layer prefixes,
    and a plan that was measured before is not run again.

    Args:
        model: the base, loaded, in eval mode.
        tokenizer: its tokenizer.
        task: name of a task.
        split: of a bundled task.
        documents: how many; drawn in seeded random order.
        seed: of that order.
        report: progress callback.
        include_path: a folder of task YAML files.
        offline: never fetch data.
        protocol: few-shot number, metric, filter, chat template.

    Raises:
        UsageError: fewer than one document, or an unknown task or split.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        task: str,
        *,
        split: str = "select",
        documents: int = 300,
        seed: int = 0,
        report: Report = lambda stage, done, total: None,
        **loading: Any,
    ):
        if documents < 1:
            raise UsageError(f"{documents} documents; expected at least 1")
        self.task: EvalTask = only(load_tasks([task], split, **loading))
        self.backend = EngineBackend(model, tokenizer)
        self.base = LayerPlan.identity(self.backend.engine.depth)
        self.report = report
        ids = self.task.order(seed)[:documents]
        self.prompts = build(self.task, ids, self.backend.lm.apply_chat_template)
        self._known: dict[LayerPlan, Rows] = {}

    def rows(self, plans: Sequence[LayerPlan]) -> dict[LayerPlan, Rows]:
        """Rows of the base and of each plan, the base first.

        Raises:
            UsageError: a plan for another depth.
            SurgeonError: a log-likelihood that is not finite.
        """
        wanted = list(dict.fromkeys((self.base, *plans)))
        for plan in wanted:
            if plan.depth != self.base.depth:
                raise UsageError(f"plan is for {plan.depth} layers, model has {self.base.depth}")
        new = {plan: plan for plan in wanted if plan not in self._known}
        if new:
            stage = f"measure {len(new)} plans"
            self._known |= self.backend.rows(
                self.prompts, new, lambda done, total: self.report(stage, done, total)
            )
        return {plan: self._known[plan] for plan in wanted}

    def compare(
        self,
        plans: Sequence[LayerPlan],
        *,
        candidates: int = 1,
        alpha: float = 0.05,
        margin: float = 0.02,
    ) -> list[Verdict]:
        """One paired comparison with the base per plan, on a fixed number of documents.

        Selection wants the size of differences; a claim comes from `check` on documents
        that were not used here, so `candidates` may stay 1.
        """
        rows = self.rows(plans)
        base = rows[self.base].scores.tolist()
        return [
            compare(
                base,
                rows[plan].scores.tolist(),
                plan="fixed",
                alpha=alpha,
                margin=margin,
                candidates=candidates,
                split=self.task.split,
                task=self.task.name,
            )
            for plan in plans
        ]


def measure(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    plans: Sequence[LayerPlan],
    task: str,
    split: str = "select",
    limit: int = 300,
    seed: int = 0,
    progress: Report = lambda stage, done, total: None,
    protocol: Protocol | None = None,
) -> dict[LayerPlan, Rows]:
    """Rows of the base and of each plan on the first `limit` documents in seeded order.

    Args:
        model: the base, loaded, in eval mode.
        tokenizer: its tokenizer.
        plans: plans of the base; the base itself is always measured, and comes first.
        task: name of a task.
        split: of a bundled task.
        limit: number of documents.
        seed: of the document order.
        progress: callback `(stage, done, total)`.
        protocol: few-shot number, metric, filter, chat template.
    """
    measurer = Measurer(
        model, tokenizer, task, split=split, documents=limit, seed=seed, report=progress,
        protocol=protocol,
    )  # fmt: skip
    return measurer.rows(plans)


def only(tasks: Sequence[EvalTask]) -> EvalTask:
    """The one task of a list.

    Raises:
        UsageError: a name that stands for several tasks.
    """
    if len(tasks) != 1:
        names = ", ".join(task.name for task in tasks[:8])
        raise UsageError(f"one task is needed here, this name stands for {len(tasks)}: {names}")
    return tasks[0]
