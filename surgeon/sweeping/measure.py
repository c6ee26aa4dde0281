"""Rows of candidates on a stream of documents, from the ledger or from whoever works."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from surgeon.evals.stream import Drawn
from surgeon.sweeping.ledger import Ledger, Unit
from surgeon.sweeping.local import Executor
from surgeon.sweeping.moves import Candidate

Array = NDArray[np.float64]

UNIT_DOCUMENTS = 64
"""Documents of one unit of work: enough to fill batches, few enough to lose at a kill."""

Watch = Callable[[int, int], bool]
"""Called with documents (done, in all) whenever more are known; true means stop."""


class Measurements:
    """Scores and log-likelihoods of candidates of one base.

    Args:
        ledger: where rows are and go.
        executor: who measures what is not there.
        depth: layers of the base.
    """

    def __init__(self, ledger: Ledger, executor: Executor, depth: int):
        self.ledger, self.executor, self.depth = ledger, executor, depth
        self.asked = 0

    def finish(
        self,
        candidates: Sequence[Candidate],
        documents: Sequence[Drawn],
        watch: Watch = lambda done, total: False,
    ) -> int:
        """Have the base and the candidates measured on documents, in order.

        Args:
            candidates: the base is always measured with them.
            documents: cut into units that do not depend on what was seen.
            watch: called whenever more documents are known, always the first ones.

        Returns:
            How many of the documents are known; fewer than all only if `watch` stopped.
        """
        plans = tuple(self.text(each) for each in (Candidate(), *candidates))
        parts = list(_parts(documents))
        units = [Unit(plans, part) for part in parts]
        self.asked += len(plans) * len(documents)
        known = 0

        def stop() -> bool:
            nonlocal known
            told = None
            # Unit by unit: what is made of rows must not depend on when they came.
            while known < len(units) and not self.ledger.missing(units[known]):
                known += 1
                told = watch(sum(map(len, parts[:known])), len(documents))
            return watch(sum(map(len, parts[:known])), len(documents)) if told is None else told

        if not stop():
            self.executor.finish(self.ledger, units, stop)
        return sum(map(len, parts[:known]))

    def text(self, candidate: Candidate) -> str:
        """The plan of a candidate as the ledger names it."""
        return str(candidate.plan(self.depth))

    def scores(self, candidate: Candidate, documents: Sequence[Drawn]) -> Array:
        """Scores of a measured candidate (n,)."""
        return self._column(candidate, documents, 0)

    def gold(self, candidate: Candidate, documents: Sequence[Drawn]) -> Array:
        """Log-likelihoods of the right answers, nats (n,)."""
        return self._column(candidate, documents, 1)

    def _column(self, candidate: Candidate, documents: Sequence[Drawn], at: int) -> Array:
        rows = self.ledger.rows(self.text(candidate), documents)
        return np.array([row[at] for row in rows], dtype=np.float64)


def _parts(documents: Sequence[Drawn]) -> Iterator[tuple[Drawn, ...]]:
    for start in range(0, len(documents), UNIT_DOCUMENTS):
        yield tuple(documents[start : start + UNIT_DOCUMENTS])
