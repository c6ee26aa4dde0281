"""In which order documents are looked at: seeded, random, in chunks fixed beforehand."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

FIRST_CHUNK, LARGEST_CHUNK = 32, 512


class Ordered(Protocol):
    """A task: a name and a seeded order of its documents."""

    @property
    def name(self) -> str:
        """Name of the task."""
        ...

    def order(self, seed: int) -> list[int]:
        """Its document numbers in random order."""
        ...


@dataclass(frozen=True)
class Drawn:
    """One document to be looked at."""

    task: str
    doc_id: int


def draw(
    tasks: Sequence[Ordered],
    weights: Mapping[str, float],
    seed: int,
    without: Mapping[str, frozenset[int]] | None = None,
) -> list[Drawn]:
    """All documents in the order they will be looked at.

    Each document's task is drawn with its weight, so the pooled stream is a sample of the
    mixture whose mean difference is the weighted mean over tasks. The stream ends where the
    drawn task has no document left: going on would change the weights.

    Args:
        tasks: whose documents to draw.
        weights: per task, positive.
        seed: of the order.
        without: document numbers to leave out, per task.
    """
    left = {
        task.name: [at for at in task.order(seed) if at not in (without or {}).get(task.name, ())]
        for task in tasks
    }
    queues = {name: iter(ids) for name, ids in left.items()}
    generator = random.Random(f"surgeon/stream/{seed}")
    total = sum(weights[task.name] for task in tasks)
    drawn: list[Drawn] = []
    while True:
        name = _pick(tasks, weights, generator.random() * total)
        doc_id = next(queues[name], None)
        if doc_id is None:
            return drawn
        drawn.append(Drawn(name, doc_id))


def _pick(tasks: Sequence[Ordered], weights: Mapping[str, float], at: float) -> str:
    for task in tasks:
        at -= weights[task.name]
        if at < 0:
            return task.name
    return tasks[-1].name


def chunks(
    documents: Sequence[Drawn], ends: Sequence[int] = (), first: int = FIRST_CHUNK, growth: int = 4
) -> Iterator[list[Drawn]]:
    """Cut a stream into chunks whose sizes do not depend on what was seen.

    Chunks grow with the documents before them, so that looks stay frequent early and cheap
    late.

    Args:
        documents: the stream.
        ends: the only places where a chunk may end, if there are any.
        first: documents of the smallest chunk.
        growth: a chunk is one part in so many of the documents before it.
    """
    start = 0
    stops = [end for end in ends if 0 < end < len(documents)]
    while start < len(documents):
        size = min(LARGEST_CHUNK, max(first, start // growth))
        stop = next((end for end in stops if end > start), len(documents)) if ends else start + size
        yield list(documents[start:stop])
        start = stop
