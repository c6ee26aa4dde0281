"""A probe's rankings against what was measured: how well each scorer predicts.

A prediction that is "within two layers of the optimum" may be no better than a guess: of 27
blocks, a dozen can be that near. So each figure stands beside what a block drawn at random
would get, and with a bootstrap interval over documents (Efron and Tibshirani, "An
Introduction to the Bootstrap", 1993, ch. 13), since the measured optimum is itself an
estimate.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau, rankdata

from surgeon.block import Block
from surgeon.errors import UsageError
from surgeon.score import Ranking
from surgeon.sweeping.result import Prediction

Array = NDArray[np.float64]

RESAMPLES = 2000
LEVEL = 0.95
NEAR = 2
"""Layers by which a prediction may miss and still count, as in CircuitProbe's claim."""


def predictions(
    rankings: Sequence[Ranking],
    differences: Mapping[Block, Array],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[Prediction]:
    """Compare each ranking with the measured differences.

    Args:
        rankings: of a probe of the same model.
        differences: score of the candidate minus score of the base per document (n,), by
            block; the same documents for every block.
        resamples: draws of the documents for the intervals.
        seed: of these draws.

    Raises:
        UsageError: rankings of another depth, or with no block among the measured ones.
    """
    blocks = list(differences)
    table = np.array([differences[block] for block in blocks])  # (K, n)
    generator = np.random.default_rng(seed)
    n = table.shape[1]
    draws = generator.multinomial(n, np.full(n, 1 / n), size=resamples)  # (R, n)
    means = table @ draws.T / n  # (K, R)
    return [_prediction(ranking, blocks, table.mean(axis=1), means) for ranking in rankings]


def _prediction(
    ranking: Ranking, blocks: Sequence[Block], measured: Array, means: Array
) -> Prediction:
    scores = {entry.block: entry.score for entry in ranking.entries}
    both = [at for at, block in enumerate(blocks) if block in scores]
    if not both:
        raise UsageError(
            f"`{ranking.scorer}` ranked none of the measured blocks",
            hint="probe with the same --sizes as the sweep",
        )
    own = np.array([scores[blocks[at]] for at in both])
    first = next(entry.block for entry in ranking.entries if entry.block in set(blocks))
    place = blocks.index(first)
    # The optimum is that of all measured blocks: a scorer that could not rank it missed it.
    best = int(measured.argmax())
    bests = means.argmax(axis=0)
    distances = np.array([first.distance(block) for block in blocks])
    to_best = np.array([[a.distance(b) for b in blocks] for a in blocks])
    regrets = means.max(axis=0) - means[place]
    correlations = _spearman(own, means[both])
    return Prediction(
        scorer=ranking.scorer,
        blocks=len(both),
        unranked=len(blocks) - len(both),
        predicted=first,
        predicted_difference=float(measured[place]),
        best=blocks[best],
        best_difference=float(measured[best]),
        distance=int(distances[best]),
        spearman=float(_spearman(own, measured[both][:, None])[0]),
        spearman_interval=_percentiles(correlations),
        kendall=float(kendalltau(own, measured[both]).statistic) if len(both) > 1 else math.nan,
        hit=place == best,
        hit_share=float((bests == place).mean()),
        within_two=bool(distances[best] <= NEAR),
        within_two_share=float((distances[bests] <= NEAR).mean()),
        regret=float(measured[best] - measured[place]),
        regret_interval=_percentiles(regrets),
        chance_hit=1 / len(blocks),
        chance_within_two=float((to_best[best] <= NEAR).mean()),
        chance_regret=float(measured[best] - measured.mean()),
        level=LEVEL,
    )


def _spearman(scores: Array, columns: Array) -> Array:
    """Spearman's rho of scores (K,) with each column of (K, R); NaN where one is constant."""
    left = rankdata(scores) - (len(scores) + 1) / 2
    right = rankdata(columns, axis=0) - (len(scores) + 1) / 2
    scale = np.sqrt((left**2).sum() * (right**2).sum(axis=0))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(left @ right / np.where(scale > 0, scale, math.nan))


def _percentiles(values: Array) -> tuple[float, float]:
    known = values[np.isfinite(values)]
    if not len(known):
        return math.nan, math.nan
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
