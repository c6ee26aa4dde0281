"""The damage detector: is the right answer plainly less likely than before?

Accuracy needs hundreds of documents; the log-likelihood of the right answer shows a broken
model within a few dozen. It moves with every change of the weights, also good ones, so only
a large fall counts, and it never makes a candidate `improved`.
"""

from collections.abc import Sequence

import numpy as np

from surgeon.evals.result import Damage
from surgeon.evals.rows import Row
from surgeon.sequential import BettingSequence

FEWEST, MOST = 10, 30
"""Documents looked at: not before the first number, not beyond the second."""

LIMIT = 1.0
"""Nats per answer token, on average: the right answer e times less likely than before."""

CLIP = 4.0
"""Nats per answer token: a single document counts no more than this."""

ALPHA = 0.02


class DamageDetector:
    """Watches the first documents of a check."""

    def __init__(self) -> None:
        self._sequence = BettingSequence(ALPHA, null=LIMIT / CLIP)
        self._drops: list[float] = []
        self._damaged = False

    def add(self, base: Sequence[Row], candidate: Sequence[Row]) -> None:
        """Take in the next documents; those beyond the first `MOST` are not looked at."""
        for left, right in zip(base, candidate, strict=True):
            if len(self._drops) == MOST:
                return
            fall = (left.gold_loglikelihood - right.gold_loglikelihood) / left.gold_tokens
            self._drops.append(float(np.clip(fall, -CLIP, CLIP)))
            self._sequence.update([self._drops[-1] / CLIP])
            if len(self._drops) >= FEWEST and self._sequence.lower * CLIP > LIMIT:
                self._damaged = True

    def result(self) -> Damage:
        """What was found so far."""
        return Damage(
            damaged=self._damaged,
            n=len(self._drops),
            drop=float(np.mean(self._drops)) if self._drops else float("nan"),
            interval=(self._sequence.lower * CLIP, self._sequence.upper * CLIP),
            level=1 - ALPHA,
            limit=LIMIT,
        )
