"""Choosing the block to duplicate: measure what the scorers propose, then refine the best.

Everything here looks at the `select` split only; what is chosen is judged later, on
documents it never saw. The number of blocks tried is kept, because the best of many looks
better than it is.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from surgeon.block import Block
from surgeon.checkpoint.manifest import Manifest
from surgeon.errors import UsageError
from surgeon.paired import Verdict
from surgeon.plan import LayerPlan
from surgeon.record import Measured, Record
from surgeon.score.base import Ranking

Compare = Callable[[Sequence[Block]], Mapping[Block, Verdict]]
"""Measures blocks in memory against the base on the `select` split."""


class Proposal(Record):
    """A block to measure and who proposed it, such as `stability #1`."""

    block: Block
    origin: str


class Tried(Record):
    """One measured block: the paired comparison with the base on the `select` split."""

    block: Block
    origin: str
    verdict: Verdict


class Selection(Record):
    """What was measured, and the block that won, if any did.

    The intervals of `tried` hold together for all `budget` blocks that may be measured.

    Example:
        >>> import json, surgeon
        >>> from pathlib import Path
        >>> text = Path("runs/demo/select.json").read_text()
        >>> made = surgeon.Selection.from_dict(json.loads(text))
        >>> made.task, made.winner in [each.block for each in made.tried]
        ('cups', True)
    """

    SCHEMA: ClassVar[str] = "surgeon.select/1"

    mode: str
    task: str | None
    n: int
    base: Measured
    tried: tuple[Tried, ...]
    winner: Block | None
    origin: str | None
    reason: str

    @property
    def best(self) -> Tried | None:
        """The measured block with the largest gain, whether it won or not."""
        return _best(self.tried) if self.tried else None

    @property
    def verdict(self) -> Verdict | None:
        """The comparison of the best measured block on the split it was chosen on."""
        return self.best.verdict if self.best else None


def propose(rankings: Sequence[Ranking], candidates: Mapping[str, int]) -> list[Proposal]:
    """Each scorer's best blocks, without repeats; the first to propose a block is named.

    Raises:
        UsageError: a count for a scorer that was not run.
    """
    by_scorer = {ranking.scorer: ranking for ranking in rankings}
    proposals: dict[Block, str] = {}
    for scorer, count in candidates.items():
        if scorer not in by_scorer:
            raise UsageError(
                f"select.candidates asks for `{scorer}`, which the probe did not run",
                hint=f"scorers of the probe: {', '.join(by_scorer)}",
            )
        for place, entry in enumerate(by_scorer[scorer].entries[:count], start=1):
            origin = f"{scorer} #{place}"
            if entry.block in proposals:
                proposals[entry.block] += f", {origin}"
            else:
                proposals[entry.block] = origin
    return [Proposal(block=block, origin=origin) for block, origin in proposals.items()]


def take_first(rankings: Sequence[Ranking]) -> Selection:
    """No measurement: the first scorer's first block.

    Raises:
        UsageError: that scorer ranked no block.
    """
    first = rankings[0]
    if not first.entries:
        raise UsageError(f"`{first.scorer}` ranked no block", hint="try other sizes or a scorer")
    return Selection(
        mode="top1",
        task=None,
        n=0,
        base=float("nan"),
        tried=(),
        winner=first.entries[0].block,
        origin=f"{first.scorer} #1",
        reason="top1: taken unmeasured",
    )


def select(
    proposals: Sequence[Proposal],
    compare: Compare,
    *,
    task: str,
    depth: int,
    refine: bool,
    budget: int,
    min_gain: float,
) -> Selection:
    """Measure the proposals, then move the best by one layer at a time while it improves.

    Args:
        proposals: in order; those beyond `budget` are not measured.
        compare: measures several blocks at once.
        task: name of the task measured on, for the record.
        depth: layers of the model.
        refine: whether to try the neighbours of the best block.
        budget: how many blocks may be measured in all.
        min_gain: difference in score below which nothing has won.

    Returns:
        Every measured block with its comparison, and the winner if one gained enough.

    Raises:
        UsageError: nothing was proposed.
    """
    if not proposals:
        raise UsageError("no block was proposed", hint="ask for at least one candidate")
    tried = _measure(list(proposals)[:budget], compare)
    best = _best(tried)
    while refine and len(tried) < budget:
        known = {entry.block for entry in tried}
        around = [block for block in best.block.neighbours(depth) if block not in known]
        steps = [Proposal(block=b, origin=_step(best.block, b)) for b in around]
        tried += _measure(steps[: budget - len(tried)], compare)
        ahead = _best(tried)
        if ahead.verdict.difference <= best.verdict.difference:
            break
        best = ahead
    return conclude(tried, mode="measured", task=task, min_gain=min_gain)


def conclude(tried: Sequence[Tried], *, mode: str, task: str, min_gain: float) -> Selection:
    """The best of the measured blocks, if it gained enough.

    Args:
        tried: every measured block; at least one.
        mode: how they came to be measured, for the record.
        task: name of the task measured on, for the record.
        min_gain: difference in score below which nothing has won.
    """
    best = _best(tried)
    gain = best.verdict.difference
    won = gain >= min_gain and gain > 0
    return Selection(
        mode=mode,
        task=task,
        n=best.verdict.n,
        base=best.verdict.base,
        tried=tuple(tried),
        winner=best.block if won else None,
        origin=best.origin if won else None,
        reason=(
            f"best of {len(tried)} measured: {gain:+.3f} on {best.verdict.n} documents"
            if won
            else f"none of {len(tried)} measured blocks gained {min_gain:.3f}; "
            f"the best, {best.block}, changed the score by {gain:+.3f}"
        ),
    )


def _measure(proposals: Sequence[Proposal], compare: Compare) -> list[Tried]:
    verdicts = compare([proposal.block for proposal in proposals]) if proposals else {}
    return [Tried(block=p.block, origin=p.origin, verdict=verdicts[p.block]) for p in proposals]


def _best(tried: Sequence[Tried]) -> Tried:
    """The largest gain; of equal ones the smallest block, then the earliest measured."""
    return min(tried, key=lambda entry: (-entry.verdict.difference, len(entry.block)))


def _step(origin: Block, block: Block) -> str:
    """How a neighbour came from a block."""
    move = "shift" if len(origin) == len(block) else "resize"
    return f"{move} of {origin}"


def plan_from(result: Any, depth: int, times: int = 2) -> LayerPlan:
    """The plan that one of our JSON results names.

    Args:
        result: a probe (first block of its first scorer), a selection or a run (the
            winner), a sweep (its winner), a manifest or a plan, as parsed JSON.
        depth: layers of the model it is for.
        times: passes through a block, where the result names a block and not a plan.

    Raises:
        UsageError: another kind of document, a result without a winner, another depth.
    """
    tag = result.get("schema") if isinstance(result, dict) else None
    try:
        if tag == LayerPlan.SCHEMA:
            return _for_depth(LayerPlan.from_dict(result), depth)
        if tag == Manifest.SCHEMA:
            return _for_depth(Manifest.from_dict(result).plan, depth)
        if tag == Selection.SCHEMA:
            return _winner(Selection.from_dict(result), depth, times)
        if tag == "surgeon.run/1":
            return _winner(Selection.from_part(result["selection"]), depth, times)
        if tag == "surgeon.sweep/1":
            return _for_depth(_swept(result), depth)
        if tag == "surgeon.probe/1":
            return _first(Ranking.from_part(result["rankings"][0]), depth, times)
    except (KeyError, IndexError, TypeError, StopIteration) as error:
        raise UsageError(f"the `{tag}` document is incomplete: {error!r}") from error
    raise UsageError(
        f"cannot take a block from a document with schema `{tag}`",
        hint="give the JSON of surgeon probe, sweep or run, a plan, or a surgeon.json",
    )


def _for_depth(plan: LayerPlan, depth: int) -> LayerPlan:
    if plan.depth != depth:
        raise UsageError(f"the plan is for {plan.depth} layers, the model has {depth}")
    return plan


def _winner(selection: Selection, depth: int, times: int) -> LayerPlan:
    if selection.winner is None:
        raise UsageError("the result has no winner: no block gained enough")
    return LayerPlan.duplicate(depth, selection.winner, times)


def _swept(result: dict[str, Any]) -> LayerPlan:
    """The winner's plan of a sweep, which may repeat several blocks."""
    label = result["winner"]
    if label is None:
        raise UsageError(f"the sweep has no winner: {result['reason']}")
    plan = next(e["plan"] for e in result["effects"] if e["label"] == label)
    return LayerPlan.parse(plan["layers"], plan["depth"])


def _first(ranking: Ranking, depth: int, times: int) -> LayerPlan:
    if ranking.best is None:
        raise UsageError(f"`{ranking.scorer}` ranked no block")
    if ranking.depth != depth:
        raise UsageError(f"the probe is of {ranking.depth} layers, the model has {depth}")
    return LayerPlan.duplicate(depth, ranking.best.block, times)
