"""Anytime-valid inference for the mean of paired differences, by betting.

For a hypothetical mean m and a bet u in (0, 1), the capital after differences D_1 .. D_t,
each in [-1, 1], is

    K+_t(m; u) = prod_i [1 + u (D_i - m) / (1 + m)]     tests  mean <= m
    K-_t(m; u) = prod_i [1 - u (D_i - m) / (1 - m)]     tests  mean >= m

Each factor is non-negative with expectation at most 1 under its null, so by Ville's
inequality P(sup_t K >= 1/a) <= a: one may look after every document and stop at will. The
capitals are averaged over a grid of bets, which adapts them to the variance. The
confidence sequence at time t is {m : K+_t(m) < 2/alpha and K-_t(m) < 2/alpha}; K+ falls
and K- rises in m, so it is an interval, and its intersection over time covers too.

At m = 0 ties drop out and the test is a sequential McNemar test.

Reference: Waudby-Smith and Ramdas, "Estimating means of bounded random variables by
betting", JRSS-B 86 (2024): the hedged capital process. Deviation: a uniform mixture over
fixed bets (the method of mixtures) in place of plug-in bets, so that nothing of the data
is needed but the counts of its values.
"""

from math import log

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm

from surgeon.errors import UsageError

Array = NDArray[np.float64]

BETS: Array = np.geomspace(0.03, 0.90, 10)
"""Fractions of the largest allowed bet; good for |mean| / share of ties broken in 0.05 .. 1."""

MOST_LOOKS = 16
"""Looks per update where differences take many values; ternary ones are looked at one by one."""


def log_capital(values: Array, counts: Array, mean: Array) -> Array:
    """Log of the mixture capital against `true mean <= mean`.

    Args:
        values: distinct differences (V,), each in [-1, 1].
        counts: how often each occurred, per look (L, V).
        mean: hypothetical mean per look (L,), each in (-1, 1].

    Returns:
        Log capital per look (L,).
    """
    odds = (values[None, :, None] - mean[:, None, None]) / (1 + mean[:, None, None])  # (L, V, 1)
    gains = np.log1p(BETS * odds)  # (L, V, bets)
    logs = (counts[:, None, :] @ gains)[:, 0]  # (L, bets)
    most = logs.max(axis=1)
    return np.asarray(most + np.log(np.exp(logs - most[:, None]).mean(axis=1)))


def lower_bound(values: Array, counts: Array, alpha: float) -> Array:
    """Largest mean m that the capital K+(m) >= 1/alpha still rules out, per look (L,).

    Found by bisection, and rounded to the side that keeps the bound valid; -1 where
    nothing is ruled out.
    """
    threshold = log(1 / alpha)
    low = np.full(len(counts), -1 + 1e-9)
    high = np.ones(len(counts))
    possible = log_capital(values, counts, low) >= threshold
    for _ in range(44):
        middle = (low + high) / 2
        rejected = log_capital(values, counts, middle) >= threshold
        low, high = np.where(rejected, middle, low), np.where(rejected, high, middle)
    return np.where(possible, low, -1.0)


class BettingSequence:
    """A running confidence sequence and e-process for the mean of differences in [-1, 1].

    Args:
        alpha: the probability that the sequence ever misses the true mean, at most.
        null: the mean that the e-values test.
    """

    def __init__(self, alpha: float = 0.05, null: float = 0.0):
        if not 0 < alpha < 1:
            raise UsageError(f"alpha is {alpha}, expected a number between 0 and 1")
        self.alpha, self.null = alpha, null
        self.n = 0
        self.values: Array = np.zeros(0)
        self.counts: Array = np.zeros(0)
        self.lower, self.upper = -1.0, 1.0
        self.log_up = self.log_down = 0.0
        self.log_most = 0.0
        self.trace: list[tuple[int, float, float, float]] = []

    def update(self, differences: ArrayLike) -> None:
        """Take in the next differences, in the order they were drawn.

        Raises:
            UsageError: a difference is outside [-1, 1] or not a number.
        """
        chunk = np.asarray(differences, dtype=np.float64).ravel()
        if not len(chunk):
            return
        if not (np.abs(chunk) <= 1).all():
            raise UsageError("a paired difference is outside [-1, 1]", hint="set a larger scale")
        looks, counts = self._cumulate(chunk)
        alpha = self.alpha / 2
        lows = lower_bound(self.values, counts, alpha)
        highs = -lower_bound(-self.values, counts, alpha)
        lows = np.maximum.accumulate(np.maximum(lows, self.lower))
        highs = np.minimum.accumulate(np.minimum(highs, self.upper))
        self.lower, self.upper = float(lows[-1]), float(highs[-1])
        null = np.full(len(counts), self.null)
        up = log_capital(self.values, counts, null)
        down = log_capital(-self.values, counts, -null)
        self.log_up, self.log_down = float(up[-1]), float(down[-1])
        self.log_most = max(self.log_most, float(np.maximum(up, down).max()))
        means = counts @ self.values / looks
        self.trace.extend(
            zip(looks.tolist(), means.tolist(), lows.tolist(), highs.tolist(), strict=True)
        )
        self.n = int(looks[-1])
        self.counts = counts[-1]

    def _cumulate(self, chunk: Array) -> tuple[NDArray[np.int64], Array]:
        """Numbers of documents at each new look (L,), and counts of values there (L, V)."""
        values = np.union1d(self.values, chunk)
        before = np.zeros(len(values))
        before[np.searchsorted(values, self.values)] = self.counts
        ends = np.arange(1, len(chunk) + 1)
        if len(values) > 3:
            ends = np.unique(np.linspace(0, len(chunk), MOST_LOOKS + 1).astype(int)[1:])
            ends = ends[ends > 0]
        place = np.searchsorted(values, chunk)
        counts = np.zeros((len(ends), len(values)))
        np.add.at(counts, (np.searchsorted(ends, np.arange(1, len(chunk) + 1)), place), 1)
        self.values = values
        return self.n + ends, before + np.cumsum(counts, axis=0)

    @property
    def e_value(self) -> float:
        """Two-sided e-value now: the mean of both directions' capital."""
        return float(np.exp(min(690.0, np.logaddexp(self.log_up, self.log_down) - log(2))))

    @property
    def p_value(self) -> float:
        """Anytime-valid two-sided p: at most `alpha` exactly when the sequence left the null."""
        return float(min(1.0, 2 * np.exp(-self.log_most)))

    def documents_to_exclude(self, mean: float, upper: bool, most: int = 10**6) -> int | None:
        """Documents in all at which `mean` would be ruled out if the values so far repeat.

        Args:
            mean: the hypothetical mean.
            upper: rule it out as too high instead of too low.
            most: give up beyond this many documents.
        """
        if not self.n:
            return None
        sign = -1.0 if upper else 1.0
        target = log(2 / self.alpha)

        def capital(n: float) -> float:
            counts = self.counts[None, :] * (n / self.n)
            return float(log_capital(sign * self.values, counts, np.array([sign * mean]))[0])

        if capital(most) < target:
            return None
        low, high = 0, most
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if capital(middle) >= target else (middle, high)
        return high


def obrien_fleming(looks: int, alpha: float = 0.05) -> Array:
    """Critical |z| at each of equally spaced looks, two-sided, exact for normal data.

    The boundary is z_k = c sqrt(K / k). In terms of the sum of k standard normal steps it
    is the constant c sqrt(K), so c follows from a random walk between two walls, whose
    density is carried forward by quadrature (Armitage, McPherson and Rowe, JRSS-A 132
    (1969)).

    Reference: O'Brien and Fleming, Biometrics 35 (1979).

    Raises:
        UsageError: no looks.
    """
    from scipy.optimize import brentq

    if looks < 1:
        raise UsageError(f"{looks} looks; expected at least 1")
    nodes, weights = np.polynomial.legendre.leggauss(128)

    def crossed(wall: float) -> float:
        x, w = wall * nodes, wall * weights
        density = norm.pdf(x)
        step = norm.pdf(x[:, None] - x[None, :])
        for _ in range(looks - 1):
            density = step @ (w * density)
        return float(1 - w @ density - alpha)

    wall = float(brentq(crossed, 0.5, 20.0 + looks))
    return wall / np.sqrt(np.arange(1, looks + 1))
