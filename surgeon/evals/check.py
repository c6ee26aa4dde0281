"""The quick check: a candidate against its base, document by document, until it is clear.

Documents are drawn in seeded random order and looked at in chunks. Nothing is concluded
unless document, prompt and target hashes agree for every pair, all scores are finite, and
scoring the base twice flips no answer.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from surgeon.errors import UsageError
from surgeon.evals.evaltask import EvalTask, Protocol
from surgeon.evals.harness import load_tasks, versions
from surgeon.evals.ledger import count_tried
from surgeon.evals.pair import BackendName, Pair, open_pair, template_sha256
from surgeon.evals.result import CheckResult
from surgeon.evals.rows import Row, Rows, require_distinct
from surgeon.evals.running import Report, Requirement, Run, Watch
from surgeon.evals.stream import draw
from surgeon.paired import Comparison, Plan


def check(
    base: Path | str,
    candidate: Path | str,
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

    Example:
        >>> import surgeon
        >>> base = surgeon.resolve("demo:planted").path
        >>> result = surgeon.check(base, "runs/demo/model", ["cups"], limit=200)
        >>> result.verdict.verdict, result.stopped
        ('improved', 'decided')
        >>> result.verdict.difference > 0.1
        True

    Raises:
        UsageError: settings that do not fit.
        UnknownName: no such task or split.
        SurgeonError: the comparison is not one: other documents or prompts, scores that are
            not finite, another tokenizer, duplicate documents, answers that flip by themselves.
    """
    started = time.monotonic()
    base, candidate = Path(base), Path(candidate)
    # Settings are judged before anything is loaded.
    Comparison(alpha=alpha, margin=margin, candidates=candidates)
    loaded = load_tasks(tasks, split, include_path, offline, protocol)
    shares = _weights(loaded, weights)
    if duplicates == "refuse":
        for task in loaded:
            require_distinct(task.name, task.doc_hashes)
    without = {task.name: task.repeated for task in loaded}
    dropped = sum(map(len, without.values()))
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
    run = Run(
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
        notes=(*run.notes(), *pair.notes),
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
