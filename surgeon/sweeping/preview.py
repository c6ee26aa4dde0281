"""What a sweep would do, without doing it."""

from collections.abc import Sequence
from typing import ClassVar

from surgeon.evals.trie import LayerTrie
from surgeon.record import Record
from surgeon.sweeping.moves import Candidate, grid


class SweepPlan(Record):
    """The work of a full sweep of single candidates.

    `layer_forwards` are layers run for one batch of documents over all plans, the base
    included; `layer_forwards_alone` with every plan run by itself.
    """

    SCHEMA: ClassVar[str] = "surgeon.sweep-plan/1"

    depth: int
    candidates: int
    documents: int
    evaluations: int
    layer_forwards: int
    layer_forwards_alone: int


def plan_sweep(
    depth: int, sizes: Sequence[int] | None, times: Sequence[int], each: bool, documents: int
) -> SweepPlan:
    """Count the work of a sweep.

    Raises:
        UsageError: nothing to measure, or too much.
    """
    found = grid(depth, sizes, times, each)
    plans = {str(candidate): candidate.plan(depth) for candidate in (Candidate(), *found)}
    trie = LayerTrie(plans)
    return SweepPlan(
        depth=depth,
        candidates=len(found),
        documents=documents,
        evaluations=len(plans) * documents,
        layer_forwards=trie.nodes,
        layer_forwards_alone=trie.naive,
    )
