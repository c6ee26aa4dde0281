"""The measured effect of every block: one base, many plans, the same documents for all.

All plans run through one copy of the weights and share every layer prefix; no checkpoint is
written. Rows go to a ledger, so a sweep that was stopped goes on where it was, and several
processes may work on one. What is shown on the way is valid on the way: the intervals may
be watched.
"""

import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from surgeon.block import Block
from surgeon.checkpoint.guard import refuse_large
from surgeon.checkpoint.store import Checkpoint
from surgeon.errors import UsageError
from surgeon.evals.engine import MEMORY
from surgeon.evals.evaltask import EvalTask, Protocol, pooled_scale
from surgeon.evals.stream import draw
from surgeon.models import choose_device, choose_dtype, stored_dtype
from surgeon.score import Ranking
from surgeon.sweeping.ledger import Ledger
from surgeon.sweeping.local import Executor, LocalExecutor
from surgeon.sweeping.measure import Measurements
from surgeon.sweeping.moves import Candidate, grid
from surgeon.sweeping.prediction import predictions
from surgeon.sweeping.result import Prediction, SweepCost, SweepResult
from surgeon.sweeping.running import SweepRun
from surgeon.sweeping.work import Setting, Worker

Report = Callable[[str, int, int], None]
Watch = Callable[[str], None]

DOCUMENTS = 500

WEIGHTED = (
    "the probe's rankings weight the bets of the race; a comparison with them needs every block "
    "on every document, so run the sweep without --race"
)


def sweep(
    model: Path | str,
    tasks: Sequence[str] = ("deduction",),
    *,
    sizes: Sequence[int] | None = (3, 4, 5),
    times: Sequence[int] = (2,),
    each: bool = False,
    split: str = "select",
    documents: int = DOCUMENTS,
    race: bool = False,
    beam: int = 0,
    blocks: int = 3,
    against: Sequence[Ranking] = (),
    ledger: Path | None = None,
    memory: int = MEMORY,
    margin: float = 0.02,
    alpha: float = 0.05,
    minutes: float | None = None,
    seed: int = 0,
    device: str = "auto",
    dtype: str = "auto",
    protocol: Protocol | None = None,
    include_path: Path | None = None,
    offline: bool = False,
    ray: str | None = None,
    name: str | None = None,
    report: Report = lambda stage, done, total: None,
    watch: Watch = lambda line: None,
) -> SweepResult:
    """Measure every block of a model.

    Args:
        model: folder of the base; nothing is written there.
        tasks: bundled or any lm-eval tasks; documents are drawn from all alike.
        sizes: block sizes in layers; None for every block there is.
        times: how often a block runs.
        each: also repeat every layer of a block by itself, in place.
        split: of bundled tasks.
        documents: how many each candidate is measured on, at most.
        race: stop measuring candidates that cannot be the best, or cannot beat the base by
            the margin.
        beam: compositions kept while blocks are added one by one; 0 for single blocks only.
        blocks: most blocks of a composition.
        against: rankings of a probe of this model. They are compared with what is measured;
            in a race they decide how the bets are spread.
        ledger: JSONL file of rows to go on with; None for a temporary one.
        memory: bytes that hidden states and what is computed from them may take.
        margin: differences smaller than this do not matter.
        alpha: error probability of all intervals together, and of the race's answer.
        minutes: stop after this long; what is measured by then is valid.
        seed: of the document order.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        dtype: `auto` (the checkpoint's) or a name.
        protocol: few-shot number, metric, filter, chat template.
        include_path: a folder of task YAML files.
        offline: never fetch data.
        ray: address of a Ray cluster to work on, or `auto`; None for this process.
        name: how the record names the model; its folder if None.
        report: progress callback `(stage, done, total)`.
        watch: called with a line about the best so far.

    Raises:
        TooLarge: a 7B model or larger; nothing was read or written.
        UsageError: settings that do not fit, or memory that is too small.
        UnknownName: no such task or split.
        SurgeonError: the model cannot be scored, or the ledger cannot be written.

    Example:
        >>> import surgeon
        >>> base = surgeon.resolve("demo:planted")
        >>> found = surgeon.sweep(base.path, ["cups"], sizes=[4], documents=64)
        >>> found.winner
        '4:8'
    """
    started = time.monotonic()
    checkpoint = Checkpoint.open(Path(model))
    notes = refuse_large(checkpoint)
    candidates = grid(checkpoint.depth, sizes, times, each)
    _require_counts(documents, beam, blocks)
    _require_shares(alpha=alpha, margin=margin)
    _require_depth(against, checkpoint.depth)
    where = choose_device(device).value
    setting = Setting(
        model=str(Path(model).resolve()),
        tasks=tuple(tasks),
        split=split,
        device=where,
        dtype=choose_dtype(dtype, stored_dtype(checkpoint.config), where).value,
        memory=memory,
        protocol=protocol or Protocol(),
        include_path=str(include_path) if include_path else None,
        offline=offline,
    )
    loaded = setting.load_tasks()
    shares = dict.fromkeys((task.name for task in loaded), 1 / len(loaded))
    stream = draw(loaded, shares, seed, {task.name: task.repeated for task in loaded})
    with _ledger(ledger, setting, loaded) as book, _executor(setting, loaded, ray) as executor:
        run = SweepRun(
            Measurements(book, executor, checkpoint.depth),
            candidates,
            stream[:documents],
            stream[documents:],
            alpha=alpha / (blocks if beam else 1),
            margin=margin,
            scale=pooled_scale(loaded),
            deadline=started + 60 * minutes if minutes else math.inf,
            report=report,
            watch=watch,
        )
        summary = run.race(alpha, _weights(candidates, against)) if race else None
        if not race:
            run.measure()
        steps = run.compose(beam, blocks, alpha, split) if beam and run.stopped != "time" else []
        winner, reason = run.winner(steps)
        held, unheld = ([], []) if race else _predict(run, against)
        notes += unheld
        if race and against:
            notes.append(WEIGHTED)
        if book.broken:
            notes.append(f"{book.broken} broken lines of the ledger were left out")
        return SweepResult(
            model=name or str(model),
            depth=checkpoint.depth,
            tasks=tuple(task.name for task in loaded),
            split=loaded[0].split,
            sizes=None if sizes is None else tuple(sizes),
            times=tuple(times),
            seed=seed,
            device=where,
            dtype=setting.dtype,
            documents=run.documents,
            planned=len(run.stream),
            base=run.base,
            base_gold=run.base_gold,
            level=1 - run.alpha,
            margin=margin,
            effects=run.effects(),
            winner=winner,
            reason=reason,
            stopped=run.stopped,
            race=summary,
            beam=tuple(steps),
            predictions=tuple(held),
            cost=_cost(executor, run.measurements.asked, started),
            inputs=book.key,
            ledger=str(ledger) if ledger else None,
            notes=(*notes, *executor.notes),
        )


def _require_counts(documents: int, beam: int, blocks: int) -> None:
    if documents < 1 or beam < 0 or blocks < 1:
        raise UsageError(
            f"documents {documents}, beam {beam}, blocks {blocks}: expected at least 1, 0 and 1"
        )


def _require_shares(**shares: float) -> None:
    for name, share in shares.items():
        if not 0 < share < 1:
            raise UsageError(f"{name} is {share}, expected a number between 0 and 1")


def _require_depth(rankings: Sequence[Ranking], depth: int) -> None:
    for ranking in rankings:
        if ranking.depth != depth:
            raise UsageError(f"the probe is of {ranking.depth} layers, the model has {depth}")


def _cost(executor: Executor, asked: int, started: float) -> SweepCost:
    spent = executor.cost
    return SweepCost(
        evaluations=executor.evaluations,
        reused=max(0, asked - executor.evaluations),
        layer_forwards=spent.layer_forwards,
        layer_forwards_alone=spent.layer_forwards_alone,
        layer_tokens=spent.layer_tokens,
        layer_tokens_alone=spent.layer_tokens_alone,
        seconds=time.monotonic() - started,
        workers=executor.workers,
    )


def _predict(run: SweepRun, rankings: Sequence[Ranking]) -> tuple[list[Prediction], list[str]]:
    """The rankings against the blocks that were run twice, and what cannot be compared."""
    if not rankings or not run.documents:
        return [], []
    differences = run.block_differences()
    usable = [r for r in rankings if any(entry.block in differences for entry in r.entries)]
    notes = [
        f"`{ranking.scorer}` ranked none of the measured blocks and is left out"
        + (f": {ranking.unranked[0].reason}" if ranking.unranked else "")
        for ranking in rankings
        if ranking not in usable
    ]
    return (predictions(usable, differences) if usable else []), notes


def _weights(candidates: Sequence[Candidate], rankings: Sequence[Ranking]) -> list[float]:
    """How much is bet on each candidate being the best: 1 / its best place in a ranking."""
    last = len(candidates)
    places: dict[Block, int] = {}
    for ranking in rankings:
        for place, entry in enumerate(ranking.entries, start=1):
            places[entry.block] = min(place, places.get(entry.block, last))
    return [1 / (places.get(each.block, last) if each.block else last) for each in candidates]


@contextmanager
def _ledger(path: Path | None, setting: Setting, tasks: Sequence[EvalTask]) -> Iterator[Ledger]:
    with tempfile.TemporaryDirectory() as scratch:
        book = Ledger(path or Path(scratch) / "sweep.jsonl", setting.inputs(tasks))
        try:
            yield book
        finally:
            book.close()


@contextmanager
def _executor(setting: Setting, tasks: Sequence[EvalTask], ray: str | None) -> Iterator[Executor]:
    executor: Executor
    if ray is None:
        executor = LocalExecutor(partial(Worker, setting, tasks))
    else:
        from surgeon.sweeping.ray_cluster import RayExecutor

        executor = RayExecutor(setting, setting.inputs(tasks), ray)
    try:
        yield executor
    finally:
        executor.close()
