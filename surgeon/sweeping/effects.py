"""Differences from the base for many candidates at once, with intervals that may be watched.

The confidence sequences are those of `sequential.py`, looked at together: at each look one
row of counts per candidate instead of one row per moment. Looking at fewer moments keeps
them valid.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from surgeon.sequential import lower_bound

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

GRID = 256
"""Where differences take more than twice as many values, they are rounded to 1/GRID, outward."""


class Differences:
    """Paired differences of candidates and the base, document by document.

    Args:
        count: number of candidates.
        alpha: error probability of all intervals together.
        scale: the largest difference in score that should count; larger ones are clipped.

    Attributes:
        n: documents per candidate (K,).
        lower: of the running interval of the mean difference (K,), in units of the score.
        upper: likewise.
    """

    def __init__(self, count: int, alpha: float, scale: float = 1.0):
        self.alpha, self.scale = alpha, scale
        self.n = np.zeros(count, dtype=np.int64)
        self.lower, self.upper = np.full(count, -scale), np.full(count, scale)
        self.total, self.gold, self.gold_squares, self.score = (np.zeros(count) for _ in range(4))
        self.wins, self.losses = (np.zeros(count, dtype=np.int64) for _ in range(2))
        self._down, self._up = _Counts(count), _Counts(count)

    def add(
        self, who: Sequence[int], base: Array, scores: Array, base_gold: Array, gold: Array
    ) -> None:
        """Take in the next documents of some candidates.

        Args:
            who: candidates (L,).
            base: scores of the base (n,).
            scores: of the candidates (L, n).
            base_gold: log-likelihoods of the right answer under the base, nats (n,).
            gold: under the candidates (L, n).
        """
        at = np.asarray(who, dtype=np.int64)
        raw = scores - base
        self.n[at] += raw.shape[1]
        self.total[at] += raw.sum(axis=1)
        self.score[at] += scores.sum(axis=1)
        self.wins[at] += (raw > 0).sum(axis=1)
        self.losses[at] += (raw < 0).sum(axis=1)
        moved = gold - base_gold
        self.gold[at] += moved.sum(axis=1)
        self.gold_squares[at] += (moved**2).sum(axis=1)
        bounded = np.clip(raw / self.scale, -1, 1)
        self._down.add(at, _rounded(bounded, np.floor))
        self._up.add(at, -_rounded(bounded, np.ceil))
        alpha = self.alpha / len(self.n) / 2
        low, high = self._down.bound(at, alpha), -self._up.bound(at, alpha)
        self.lower[at] = np.maximum(self.lower[at], low * self.scale)
        self.upper[at] = np.minimum(self.upper[at], high * self.scale)

    @property
    def mean(self) -> Array:
        """Mean difference per candidate (K,); NaN before the first document."""
        return self._per_document(self.total)

    @property
    def mean_score(self) -> Array:
        """Mean score per candidate (K,)."""
        return self._per_document(self.score)

    @property
    def gold_mean(self) -> Array:
        """Mean difference in log-likelihood of the right answer per candidate (K,), nats."""
        return self._per_document(self.gold)

    def gold_interval(self, at: int) -> tuple[float, float]:
        """Student's t interval at the level of all candidates together.

        Log-likelihoods have no bound, so no betting interval; this one is for the number of
        documents where it stands.
        """
        n = int(self.n[at])
        if n < 2:
            return math.nan, math.nan
        mean = self.gold[at] / n
        variance = max(0.0, (self.gold_squares[at] - n * mean**2) / (n - 1))
        half = float(student.ppf(1 - self.alpha / len(self.n) / 2, n - 1)) * math.sqrt(variance / n)
        return float(mean - half), float(mean + half)

    def _per_document(self, sums: Array) -> Array:
        blank = np.full(len(sums), math.nan)
        return np.asarray(np.divide(sums, self.n, out=blank, where=self.n > 0))


class _Counts:
    """How often each value of a difference occurred, per candidate."""

    def __init__(self, count: int):
        self.values: Array = np.zeros(0)
        self.counts: Array = np.zeros((count, 0))

    def add(self, who: Indices, differences: Array) -> None:
        values = np.union1d(self.values, differences)
        counts = np.zeros((len(self.counts), len(values)))
        counts[:, np.searchsorted(values, self.values)] = self.counts
        place = np.searchsorted(values, differences)
        np.add.at(counts, (np.repeat(who, differences.shape[1]), place.ravel()), 1)
        self.values, self.counts = values, counts

    def bound(self, who: Indices, alpha: float) -> Array:
        return lower_bound(self.values, self.counts[who], alpha)


def _rounded(differences: Array, to: np.ufunc) -> Array:
    """The differences, or multiples of 1/GRID on one side of them if they take many values.

    Rounding down keeps a lower bound of the mean valid, rounding up an upper one.
    """
    if len(np.unique(differences)) <= 2 * GRID + 1:
        return differences
    return np.asarray(to(differences * GRID) / GRID)
