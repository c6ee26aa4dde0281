"""A check under way: the documents seen so far, what they say, and when that is clear."""

import time
from collections.abc import Callable, Sequence
from typing import Literal

from surgeon.errors import UsageError
from surgeon.evals.damage import DamageDetector
from surgeon.evals.evaltask import EvalTask, pooled_scale
from surgeon.evals.pair import Pair
from surgeon.evals.result import TaskResult, Validity
from surgeon.evals.rows import Rows, extraction_failure, require_deterministic, require_pairs
from surgeon.evals.stream import Drawn, chunks
from surgeon.fixed import mcnemar
from surgeon.paired import Comparison, Plan, Verdict, obf_ends

Requirement = Literal["improved", "not-worse"]
Report = Callable[[str, int, int], None]
Watch = Callable[[Verdict], None]

LISTED_FLIPS = 50
TRACE_POINTS = 200


class Run:
    """The documents seen so far and what they say.

    Args:
        pair: both models.
        tasks: loaded.
        stream: the documents in the order they will be looked at.
        alpha: error probability of the verdict.
        margin: differences smaller than this do not matter.
        plan: `sequential`, `fixed` or `obf`.
        candidates: how many candidates the correction counts.
        split: of bundled tasks, for the record.

    Raises:
        UsageError: tasks whose scores cannot be pooled.
    """

    def __init__(
        self,
        pair: Pair,
        tasks: Sequence[EvalTask],
        stream: Sequence[Drawn],
        *,
        alpha: float,
        margin: float,
        plan: Plan,
        candidates: int,
        split: str,
    ):
        self.pair, self.tasks, self.stream, self.plan = pair, list(tasks), stream, plan
        self.base = self.candidate = Rows()
        self.damage = DamageDetector()
        self.control = 0
        scale = pooled_scale(tasks)

        def comparison(name: str, count: int, planned: int) -> Comparison:
            return Comparison(
                alpha=alpha, margin=margin, plan=plan, candidates=count, planned=planned,
                scale=scale, split=split, task=name,
            )  # fmt: skip

        names = [task.name for task in tasks]
        counts = {name: sum(each.task == name for each in stream) or 1 for name in names}
        self.overall = comparison(", ".join(names), candidates, len(stream))
        # A claim about one of several tasks is one of several claims.
        self.per_task = {
            name: comparison(name, candidates * len(names), counts[name]) for name in names
        }
        # That no task lost more than the margin is one claim about all of them: each has to
        # be shown at the full alpha (Berger, Technometrics 24 (1982), intersection-union).
        self.bounds = {name: comparison(name, candidates, counts[name]) for name in names}

    def until_clear(
        self,
        started: float,
        minutes: float | None,
        require: Requirement | None,
        report: Report,
        watch: Watch,
    ) -> str:
        """Look at documents chunk by chunk; say why it ended."""
        ends = obf_ends(self.overall.looks, len(self.stream)) if self.plan == "obf" else ()
        report("check", 0, len(self.stream))
        for chunk in chunks(self.stream, ends):
            self._add(chunk)
            verdict = self.overall.verdict()
            watch(verdict)
            report("check", len(self.base), len(self.stream))
            if self.plan != "fixed":
                if self.damage.result().damaged and verdict.wins <= verdict.losses:
                    return "damage"
                if self._clear(verdict, require):
                    return "decided"
            late = minutes is not None and time.monotonic() - started > 60 * minutes
            if late and len(self.base) < len(self.stream):
                return "time"
        return "all documents"

    def _add(self, chunk: Sequence[Drawn]) -> None:
        answers = self.pair.answer(self.tasks, chunk)
        require_pairs(*answers)
        if not self.control:
            # The same documents make the same batches, so only chance can flip an answer.
            self.control = require_deterministic(answers.base, self.pair.control(self.tasks, chunk))
        self.damage.add(answers.base.rows, answers.candidate.rows)
        self.base, self.candidate = self.base + answers.base, self.candidate + answers.candidate
        self.overall.add(answers.base.scores, answers.candidate.scores)
        for name in self.per_task:
            left, right = answers.base.of(name), answers.candidate.of(name)
            for comparison in (self.per_task[name], self.bounds[name]):
                comparison.add(left.scores, right.scores)

    def _clear(self, verdict: Verdict, require: Requirement | None) -> bool:
        if require == "not-worse":
            bounds = self.bounds.values()
            held = all(len(each) and each.verdict().not_worse for each in bounds)
            lost = any(len(c) and c.verdict().verdict == "worse" for c in self.per_task.values())
            return (verdict.not_worse and held) or verdict.verdict == "worse" or lost
        return verdict.verdict != "undecided"

    def task_result(self, name: str) -> TaskResult:
        """One task's verdict and its answer formats."""
        left, right = self.base.of(name), self.candidate.of(name)
        lost = sum(a.extracted and not b.extracted for a, b in zip(left, right, strict=True))
        found = sum(b.extracted and not a.extracted for a, b in zip(left, right, strict=True))
        comparison = self.per_task[name]
        if not len(comparison):
            raise UsageError(f"the budget left no document of task `{name}`; raise the limit")
        return TaskResult(
            task=name,
            verdict=comparison.verdict(),
            not_worse=self.bounds[name].verdict().not_worse,
            base_gold=float(left.gold.mean()),
            candidate_gold=float(right.gold.mean()),
            base_extraction_failure=extraction_failure(left),
            candidate_extraction_failure=extraction_failure(right),
            format_changed=mcnemar(found, lost) <= 0.05,
        )

    def validity(self, dropped: int) -> Validity:
        """What was verified; anything else raised before this."""
        return Validity(
            pairs=len(self.base),
            hashes_agree=True,
            finite=True,
            control_documents=self.control,
            control_flips=0,
            duplicates_dropped=dropped,
            weights=self.pair.how,
        )

    def notes(self) -> tuple[str, ...]:
        """What a reader of the verdict must know."""
        notes = []
        damage = self.damage.result()
        if damage.damaged:
            notes.append(
                f"damaged: right answers lost {damage.drop:.2f} nats per token on the first "
                f"{damage.n} documents"
            )
        for task in self.tasks:
            result = self.task_result(task.name)
            if result.format_changed:
                notes.append(
                    f"{task.name}: answers not found went from "
                    f"{result.base_extraction_failure:.1%} to "
                    f"{result.candidate_extraction_failure:.1%}: format, not ability, may differ"
                )
            if len(self.tasks) > 1 and result.verdict.verdict == "worse":
                notes.append(f"worse on {task.name}")
        return tuple(notes)

    def flipped(self) -> dict[str, dict[str, tuple[int, ...]]]:
        """Documents won and lost per task, the first few."""
        found: dict[str, dict[str, tuple[int, ...]]] = {}
        for task in self.tasks:
            pairs = list(zip(self.base.of(task.name), self.candidate.of(task.name), strict=True))
            found[task.name] = {
                "won": tuple(a.doc_id for a, b in pairs if b.score > a.score)[:LISTED_FLIPS],
                "lost": tuple(a.doc_id for a, b in pairs if b.score < a.score)[:LISTED_FLIPS],
            }
        return found

    def trace(self) -> tuple[tuple[int, float, float, float], ...]:
        """The running interval at up to `TRACE_POINTS` looks; empty for other plans."""
        points, scale = self.overall.sequence.trace, self.overall.scale
        step = max(1, -(-len(points) // TRACE_POINTS))
        kept = points[::-1][::step][::-1]
        return tuple((n, mean * scale, low * scale, high * scale) for n, mean, low, high in kept)
