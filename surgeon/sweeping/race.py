"""Racing: stop measuring a candidate as soon as it cannot be what is looked for.

Looked for is the candidate with the largest mean score mu, if it beats the base by `margin`.
Evidence is capital from bets (`sequential.py`), which may be looked at at any moment:

    behind   capital of j over k against mu_k >= mu_j, averaged over all j with weights fixed
             beforehand. Under "k is the best" every term is a non-negative supermartingale
             that starts at 1, and so is their weighted mean.
    futile   capital against mu_k - mu_base >= margin.
    settled  capital against mu_k - mu_w >= margin for the winner w so far and every other
             candidate k that is left, with the weight of w.

Only the best candidate must not be dropped, so no union over candidates is needed: by
Ville's inequality each of the three errs with probability at most alpha / 3. A candidate
that is dropped keeps the capital that it won over others.

The weights are where a prediction helps: what the probe ranks first gets a larger share of
the bets, so others are dropped sooner if it was right, and later if it was not; the
guarantee does not depend on it.

References: Ville, "Etude critique de la notion de collectif" (1939); for averages of
e-values, Vovk and Wang, Annals of Statistics 49 (2021).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log

import numpy as np
from numpy.typing import NDArray

from surgeon.errors import UsageError
from surgeon.sequential import BETS

Array = NDArray[np.float64]

BEHIND = "shown to be worse than another"
FUTILE = "cannot beat the base by the margin"


@dataclass(frozen=True)
class Leader:
    """The winner so far, and whether it is settled that nothing is better by the margin."""

    at: int
    settled: bool


class Race:
    """Candidates that are still worth measuring.

    Args:
        added: layers that each candidate adds (K,); of equal candidates the smallest leads.
        alpha: probability that the best candidate is dropped or missed by more than the
            margin, at most.
        margin: differences smaller than this do not matter, in units of the score.
        scale: the largest difference in score that should count.
        weights: how much is bet on each candidate being the best (K,), fixed before the
            first document; None for equal.

    Attributes:
        live: indices of the candidates that are left.
        dropped: why each candidate was dropped, or None (K,).

    Raises:
        UsageError: a setting out of range.
    """

    def __init__(
        self,
        added: Sequence[int],
        *,
        alpha: float,
        margin: float,
        scale: float = 1.0,
        weights: Sequence[float] | None = None,
    ):
        count = len(added)
        if not (0 < alpha < 1 and 0 < margin < scale and count):
            raise UsageError(f"a race of {count} with alpha {alpha} and margin {margin}")
        self.added, self.scale = list(added), scale
        self._margin = margin / scale
        self._threshold = log(3 / alpha)
        share = np.ones(count) if weights is None else np.asarray(weights, dtype=np.float64)
        if len(share) != count or not (share > 0).all():
            raise UsageError("a race needs one positive weight for each candidate")
        self._share = np.log(share)
        self.live = list(range(count))
        self.dropped: list[str | None] = [None] * count
        self._documents = 0
        self._ahead, self._squares = np.zeros((count, count)), np.zeros((count, count))
        self._total = np.zeros(count)
        shape = (count, count, len(BETS))
        self._behind, self._close = np.zeros(shape), np.zeros(shape)  # [k, j]: of j over k
        self._futile = np.zeros((count, len(BETS)))

    def add(self, base: Array, scores: Array) -> None:
        """Take in the next documents and drop what cannot be looked for any more.

        Args:
            base: scores of the base (n,).
            scores: of the live candidates, in the order of `live` (L, n).
        """
        live, m = np.array(self.live), self._margin
        self._total[live] += scores.sum(axis=1)
        self._documents += len(base)
        pairs = np.ix_(live, live)
        for own, others in zip(base / self.scale, (scores / self.scale).T, strict=True):
            ahead = np.clip(others[None, :] - others[:, None], -1, 1)  # j over k
            self._ahead[pairs] += ahead
            self._squares[pairs] += ahead**2
            ahead = ahead[:, :, None]
            self._behind[pairs] += np.log1p(BETS * ahead)
            self._close[pairs] += np.log1p(BETS * (ahead + m) / (1 - m))
            short = np.clip(own - others, -1, 1)[:, None]
            self._futile[live] += np.log1p(BETS * (short + m) / (1 - m))
        self._drop()

    def _drop(self) -> None:
        behind, futile = self._evidence_behind(), _mixture(self._futile)
        for k in list(self.live):
            if futile[k] >= self._threshold:
                self.dropped[k] = FUTILE
            elif behind[k] >= self._threshold:
                self.dropped[k] = BEHIND
        self.live = [k for k in self.live if self.dropped[k] is None]

    def _evidence_behind(self) -> Array:
        """Log capital against "k is the best" (K,)."""
        evidence = _mixture(self._behind) + self._log_weights()
        np.fill_diagonal(evidence, -np.inf)
        return np.asarray(np.logaddexp.reduce(evidence, axis=1))

    def _log_weights(self) -> Array:
        """Log weight of j among the others of k, at [k, j]."""
        share = np.exp(self._share)
        rest = share.sum() - share[:, None]
        return np.asarray(self._share[None, :] - np.log(np.maximum(rest, 1e-300)))

    def leader(self) -> Leader | None:
        """The winner so far: the largest mean, of equal ones the smallest model.

        None if every candidate was dropped.
        """
        if not self.live:
            return None
        first = min(self.live, key=lambda k: (-self._total[k], self.added[k], k))
        others = [k for k in self.live if k != first]
        return Leader(first, bool((self._evidence_close(first)[others] >= self._threshold).all()))

    def _evidence_close(self, first: int) -> Array:
        """Log capital against "k is better than the leader by the margin" (K,)."""
        return np.asarray(_mixture(self._close)[:, first] + self._log_weights()[:, first])

    def undecidable(self, left: int) -> bool:
        """Whether `left` more documents would hardly change what is left.

        The capital of the best bet u grows by about d^2 / (2 v) nats a document, where d is the
        mean and v the mean square of the difference, and by log(1 + u d) at most. No candidate
        would be dropped even with d one standard error larger than it looks, and the leader
        would not be settled with d as it looks. This decides only when to stop; what is said
        then holds at any moment.
        """
        leader = self.leader()
        others = [k for k in self.live if leader and k != leader.at]
        if leader is None or not others:
            return False
        mean = self._ahead[others, leader.at] / self._documents
        square = np.maximum(self._squares[others, leader.at], 1.0) / self._documents
        error = np.sqrt(square / self._documents)

        def reached(differences: Array, evidence: Array) -> NDArray[np.bool_]:
            hoped = np.maximum(differences, 0)
            growth = np.minimum(hoped**2 / (2 * square), np.log1p(BETS[-1] * hoped))
            return np.asarray(evidence + left * growth >= self._threshold)

        droppable = reached(mean + error, self._evidence_behind()[others])
        settled = reached(mean + self._margin - error, self._evidence_close(leader.at)[others])
        return not droppable.any() and not settled.all()


def _mixture(logs: Array) -> Array:
    """Log of the capital averaged over bets: (.., bets) -> (..)."""
    return np.asarray(np.logaddexp.reduce(logs, axis=-1) - log(len(BETS)))
