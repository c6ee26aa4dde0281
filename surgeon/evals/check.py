"""The quick check: a candidate against its base, document by document, until it is clear.

Documents are drawn in seeded random order and looked at in chunks. Nothing is concluded
unless document, prompt and target hashes agree for every pair, all scores are finite, and
scoring the base twice flips no answer.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from surgeon.errors import UsageError
from surgeon.evals.damage import DamageDetector
from surgeon.evals.harness import EvalTask, Protocol, load_tasks, versions
from surgeon.evals.ledger import count_tried
from surgeon.evals.pair import BackendName, Pair, open_pair, template_sha256
from surgeon.evals.result import CheckResult, TaskResult, Validity
from surgeon.evals.rows import (
    Row,
    Rows,
    extraction_failure,
    require_deterministic,
    require_distinct,
    require_pairs,
)
from surgeon.evals.stream import Drawn, chunks, draw
from surgeon.paired import Comparison, Plan, Verdict, mcnemar, obf_ends

Requirement = Literal["improved", "not-worse"]
Report = Callable[[str, int, int], None]
Watch = Callable[[Verdict], None]

LISTED_FLIPS = 50
TRACE_POINTS = 200

ROLLING_SCALE = 0.25
"""Bits per unit of text: a larger change of one document counts no more than this."""


def check(
    base: Path,
    candidate: Path,
    tasks: Sequence[str],
    *,
    split: str = "confirm",
    limit: int | None = None,
    minutes: float | None = None,
    margin: float = 0.02,
    plan: Plan = "sequential",
    alpha: float = 0.05,
    candidates: int = 1,
    seed: int = 0,
    weights: Mapping[str, float] | None = None,
    require: Requirement | None = None,
    protocol: Protocol | None = None,
    duplicates: Literal["refuse", "drop"] = "refuse",
    include_path: Path | None = None,
    offline: bool = False,
    device: str = "auto",
    dtype: str = "auto",
    device_map: str | None = None,
    independent: bool = False,
    backend: BackendName = "engine",
    batch_size: int = 256,
    ledger: Path | None = None,
    rows_to: Path | None = None,
    report: Report = lambda stage, done, total: None,
    watch: Watch = lambda verdict: None,
) -> CheckResult:
    """Check a candidate checkpoint against its base.

    Args:
        base: model folder.
        candidate: model folder, with the same tokenizer.
        tasks: task names; groups become their tasks.
        split: of bundled tasks.
        limit: most documents over all tasks; None for all there are.
        minutes: stop after this long, whatever was seen.
        margin: differences smaller than this do not matter.
        plan: `sequential` stops as soon as it is clear; `fixed` looks at all documents and
            tests once; `obf` looks five times.
        alpha: error probability of the verdict, over all candidates.
        candidates: how many candidates are being compared on these documents.
        seed: of the document order.
        weights: weight per task, fixed beforehand; equal if None.
        require: what the caller needs; `not-worse` may be shown before more is.
        protocol: few-shot number, metric, filter, chat template.
        duplicates: `refuse` a task in which a document occurs twice, or `drop` repeats.
        include_path: a folder of task YAML files.
        offline: never fetch data.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        dtype: `auto` or a name.
        device_map: `auto` spreads a model over all devices.
        independent: load both models, even where one copy of the weights would do.
        backend: `engine`, or lm-eval's own `hf` or `vllm`.
        batch_size: most rows of a forward.
        ledger: a JSONL file that counts the candidates ever checked on this split; the
            count is part of the correction.
        rows_to: a JSONL file for per-document results; written whole, at the end.
        report: progress callback `(stage, done, total)`.
        watch: called with the verdict so far after each chunk.

    Raises:
        UsageError: settings that do not fit.
        UnknownName: no such task or split.
        SurgeonError: the comparison is not one: other documents or prompts, scores that are
            not finite, another tokenizer, duplicate documents, answers that flip by themselves.
    """
    started = time.monotonic()
    loaded = load_tasks(tasks, split, include_path, offline, protocol)
    shares = _weights(loaded, weights)
    without, dropped = _repeats(loaded, duplicates)
    stream = draw(loaded, shares, seed, without)[:limit]
    if not stream:
        raise UsageError(f"limit {limit} leaves no document to compare")
    report("load", 0, 1)
    pair = open_pair(
        base, candidate, device=device, dtype=dtype, device_map=device_map,
        independent=independent, backend=backend, batch_size=batch_size, seed=seed,
        generates=any(task.generates for task in loaded),
    )  # fmt: skip
    report("load", 1, 1)
    stated = _protocol(loaded, pair, shares, seed)
    identity = _sha256(stated)
    tried = count_tried(ledger, base, candidate, identity) if ledger else candidates
    run = _Run(
        pair, loaded, stream,
        alpha=alpha, margin=margin, plan=plan, candidates=max(candidates, tried), split=split,
    )  # fmt: skip
    stopped = run.until_clear(started, minutes, require, report, watch)
    result = CheckResult(
        base=str(base),
        candidate=str(candidate),
        plan=str(pair.plan) if pair.plan else None,
        verdict=run.overall.verdict(run.notes()),
        tasks=tuple(run.task_result(task.name) for task in loaded),
        weights=dict(shares),
        damage=run.damage.result(),
        validity=run.validity(dropped),
        stopped=stopped,
        documents=len(run.base),
        budget=len(stream),
        seconds=time.monotonic() - started,
        protocol={**stated, "documents_sha256": run.base.fingerprint()},
        protocol_sha256=identity,
        cost=_cost(pair),
        versions=versions(),
        candidates_tried=max(candidates, tried),
        flipped=run.flipped(),
        trace=run.trace(),
        notes=run.notes(),
    )
    if rows_to:
        write_rows(rows_to, run.base, run.candidate)
    return result


def _weights(tasks: Sequence[EvalTask], weights: Mapping[str, float] | None) -> dict[str, float]:
    names = [task.name for task in tasks]
    if weights is None:
        return dict.fromkeys(names, 1 / len(names))
    if set(weights) != set(names) or not all(weight > 0 for weight in weights.values()):
        raise UsageError(f"weights are for {sorted(weights)}; expected positive ones for {names}")
    total = sum(weights.values())
    return {name: weights[name] / total for name in names}


def _repeats(tasks: Sequence[EvalTask], duplicates: str) -> tuple[dict[str, frozenset[int]], int]:
    """Documents to leave out per task, and how many they are."""
    without: dict[str, frozenset[int]] = {}
    for task in tasks:
        if duplicates == "refuse":
            require_distinct(task.name, task.doc_hashes)
        first: dict[str, int] = {}
        for at, text in enumerate(task.doc_hashes):
            first.setdefault(text, at)
        without[task.name] = frozenset(range(len(task))) - frozenset(first.values())
    return without, sum(map(len, without.values()))


def _protocol(
    tasks: Sequence[EvalTask], pair: Pair, weights: Mapping[str, float], seed: int
) -> dict[str, Any]:
    """Everything that decides what a document asks and how an answer counts."""
    chat = any(task.protocol.chat for task in tasks)
    return {
        "tasks": [task.describe() for task in tasks],
        "weights": dict(weights),
        "order": {"kind": "random", "seed": seed},
        "chat_template_sha256": template_sha256(pair) if chat else None,
        "dtype": pair.dtype,
        "softmax": "float32",
    }


def _sha256(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return sha256(text.encode()).hexdigest()


def _cost(pair: Pair) -> dict[str, float]:
    total: dict[str, float] = {}
    for cost in pair.costs:
        for name, value in asdict(cost).items():
            total[name] = total.get(name, 0) + value
    return total


class _Run:
    """The documents seen so far and what they say."""

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
        rolling = [not task.bounded for task in tasks]
        if any(rolling) and not all(rolling):
            raise UsageError("tasks in bits per unit of text and tasks in 0..1 cannot be pooled")

        def comparison(name: str, count: int, planned: int) -> Comparison:
            return Comparison(
                alpha=alpha, margin=margin, plan=plan, candidates=count, planned=planned,
                scale=ROLLING_SCALE if all(rolling) else 1.0, split=split, task=name,
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


def write_rows(path: Path, base: Rows, candidate: Rows) -> None:
    """Per-document results as JSON lines, written aside and renamed."""

    def line(left: Row, right: Row) -> str:
        shared = ("task", "doc_id", "doc_hash", "prompt_hash", "target_hash")
        own = ("score", "chosen", "gold_loglikelihood", "gold_tokens", "extracted")
        record: dict[str, Any] = {name: getattr(left, name) for name in shared}
        record["base"] = {name: getattr(left, name) for name in own}
        record["candidate"] = {name: getattr(right, name) for name in own}
        return json.dumps(record, ensure_ascii=False, allow_nan=False)

    aside = path.with_name(f".{path.name}.part")
    lines = (line(a, b) + "\n" for a, b in zip(base, candidate, strict=True))
    with aside.open("w", encoding="utf-8") as file:
        file.writelines(lines)
    aside.replace(path)
