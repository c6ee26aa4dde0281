"""Several blocks at once: a beam over disjoint repeats, confirmed on held-out documents.

The best of many looks better than it is, and a greedy search picks the best at every step.
So a composition counts only as far as each of its steps is shown to be better than the one
before on documents that had no part in the search.
"""

from collections.abc import Callable, Sequence

from surgeon.evals.stream import Drawn, chunks
from surgeon.paired import Comparison, Verdict
from surgeon.sweeping.measure import Measurements
from surgeon.sweeping.moves import Candidate, Repeat
from surgeon.sweeping.result import BeamStep

Measure = Callable[[Sequence[Candidate]], dict[Candidate, float]]
"""Mean difference from the base of each candidate, on the documents that choose."""


def children(parents: Sequence[Candidate], moves: Sequence[Repeat]) -> list[Candidate]:
    """Every parent with every move that shares no layer with it, each composition once."""
    made = [p.with_move(move) for p in parents for move in moves if not p.overlaps(move)]
    return list(dict.fromkeys(made))


def search(
    singles: dict[Candidate, float],
    measure: Measure,
    *,
    width: int,
    blocks: int,
    depth: int,
) -> list[BeamStep]:
    """Add one block at a time to the best compositions while that helps.

    Args:
        singles: mean difference of every candidate of one block.
        measure: measures compositions.
        width: compositions kept at each step.
        blocks: most blocks of a composition.
        depth: layers of the base.

    Returns:
        The best composition of each number of blocks, as long as it gained over the last.
    """
    moves = [candidate.moves[0] for candidate in singles]
    level, steps = singles, [_step(singles, 0.0, depth)]
    while len(steps) < blocks:
        parents = sorted(level, key=lambda each: (-level[each], each.added))[:width]
        made = children(parents, moves)
        if not made:
            break
        level = measure(made)
        step = _step(level, steps[-1].difference, depth)
        if step.gain <= 0:
            break
        steps.append(step)
    return steps


def _step(level: dict[Candidate, float], before: float, depth: int) -> BeamStep:
    best = min(level, key=lambda each: (-level[each], each.added))
    return BeamStep(
        candidate=best,
        label=str(best),
        plan=best.plan(depth),
        difference=level[best],
        gain=level[best] - before,
        measured=len(level),
    )


def confirm(
    steps: Sequence[BeamStep],
    measurements: Measurements,
    held_out: Sequence[Drawn],
    *,
    alpha: float,
    margin: float,
    scale: float,
    split: str,
) -> list[BeamStep]:
    """Compare each step with the one before on documents that chose nothing.

    Looks at documents until all comparisons are decided; alpha is shared among them.
    """
    path = [Candidate(), *(step.candidate for step in steps)]
    comparisons = [
        Comparison(alpha=alpha, margin=margin, candidates=len(steps), scale=scale, split=split)
        for _ in steps
    ]
    for chunk in chunks(held_out):
        measurements.finish(path[1:], chunk)
        scores = [measurements.scores(each, chunk) for each in path]
        for at, comparison in enumerate(comparisons):
            comparison.add(scores[at], scores[at + 1])
        if all(each.verdict().verdict != "undecided" for each in comparisons):
            break
    verdicts: list[Verdict] = [each.verdict() for each in comparisons]
    return [
        step.model_copy(update={"confirmed": verdict})
        for step, verdict in zip(steps, verdicts, strict=True)
    ]


def confirmed_until(steps: Sequence[BeamStep]) -> BeamStep | None:
    """The last step of the unbroken run of confirmed ones; None if the first is not."""
    last = None
    for step in steps:
        if step.confirmed is None or step.confirmed.verdict != "improved":
            break
        last = step
    return last
