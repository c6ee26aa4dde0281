"""Tests and intervals for a number of documents that was fixed before the first was seen.

After looking and stopping at will none of these holds; `sequential.py` is for that.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom, norm

Array = NDArray[np.float64]

RESAMPLES = 10_000


def mcnemar(wins: int, losses: int) -> float:
    """McNemar's two-sided mid-p value.

    Given w + l discordant pairs, w is Binomial(w + l, 1/2) under the null; the mid-p counts
    half of the observed outcome's probability. Reference: Fagerland, Lydersen and Laake,
    BMC Medical Research Methodology 13:91 (2013).
    """
    pairs, fewer = wins + losses, min(wins, losses)
    if wins == losses:
        return 1.0
    return float(min(1.0, 2 * binom.cdf(fewer, pairs, 0.5) - binom.pmf(fewer, pairs, 0.5)))


def bonett_price(wins: int, losses: int, n: int, alpha: float = 0.05) -> tuple[float, float]:
    """Adjusted Wald interval for the difference of two paired proportions.

    With a = (w + 1)/(n + 2) and b = (l + 1)/(n + 2): (a - b) +- z sqrt((a + b - (a - b)^2) /
    (n + 2)). Reference: Bonett and Price, Journal of Educational and Behavioral Statistics
    37 (2012). Valid at a number of documents fixed in advance.
    """
    a, b = (wins + 1) / (n + 2), (losses + 1) / (n + 2)
    half = float(norm.ppf(1 - alpha / 2)) * math.sqrt(max(0.0, a + b - (a - b) ** 2) / (n + 2))
    return max(-1.0, a - b - half), min(1.0, a - b + half)


def bootstrap(differences: Array, alpha: float = 0.05, seed: int = 0) -> tuple[float, float]:
    """Percentile bootstrap interval for the mean of paired differences (seeded)."""
    generator = np.random.default_rng(seed)
    means = np.array(
        [generator.choice(differences, len(differences)).mean() for _ in range(RESAMPLES)]
    )
    low, high = np.quantile(means, [alpha / 2, 1 - alpha / 2])
    return float(low), float(high)


def sign_flip(differences: Array, seed: int = 0) -> float:
    """Two-sided p of the sign-flip permutation test for the mean (seeded, never zero)."""
    moved = differences[differences != 0]
    if not len(moved):
        return 1.0
    generator = np.random.default_rng(seed)
    signs = generator.choice(np.array([-1.0, 1.0]), size=(RESAMPLES, len(moved)))
    extreme = np.abs(signs @ moved) >= abs(moved.sum()) - 1e-12
    return float((1 + extreme.sum()) / (RESAMPLES + 1))


def holm(p_values: Sequence[float]) -> Array:
    """Holm's adjusted p-values (Scandinavian Journal of Statistics 6, 1979)."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p)
    steps = np.minimum(1, p[order] * (len(p) - np.arange(len(p))))
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(steps)
    return adjusted


def documents_for_power(
    difference: float, discordance: float, *, power: float = 0.8, alpha: float = 0.05
) -> int | None:
    """Documents at which McNemar's test finds a true difference with the given power.

    n = (z_{1-a/2} sqrt(psi) + z_{power} sqrt(psi - delta^2))^2 / delta^2, with psi the share
    of documents on which the models differ. Reference: Connor, Biometrics 43 (1987). None
    for no difference or beyond a million.
    """
    if difference == 0 or discordance <= 0:
        return None
    z, zp = norm.ppf(1 - alpha / 2), norm.ppf(power)
    spread = math.sqrt(max(0.0, discordance - difference**2))
    n = math.ceil(((z * math.sqrt(discordance) + zp * spread) / difference) ** 2)
    return n if n <= 10**6 else None


def documents_for_margin(
    difference: float, discordance: float, alpha: float, margin: float
) -> int | None:
    """Documents at which an interval around `difference` would lie within the margin."""
    room = margin - abs(difference)
    if room <= 0:
        return None
    variance = max(discordance - difference**2, margin / 4)
    return math.ceil(variance * (float(norm.ppf(1 - alpha / 2)) / room) ** 2)
