"""Mahalanobis: layers whose mean change is an outlier among the layers of the model.

The points are the N mean changes d_l (mean over prompts and positions of output minus
input). Their squared Mahalanobis distance is taken to a robust centre under a shrunk
covariance (1 - r) S + r m I with the r of Ledoit and Wolf (2004), m = tr S / D; centre and
S come from the three quarters of the layers that are closest, found by concentration steps
(Rousseeuw and Van Driessen, 1999). A block scores its mean share, per layer, of the
model's outlier mass, the sum over layers of what a distance exceeds the median by.
"""

from collections.abc import Sequence

import numpy as np

from surgeon.block import Block
from surgeon.score.base import Evidence, Scorer, Terms
from surgeon.stats import Floats

KEPT = 0.75
STEPS = 10


def mahalanobis_terms(evidence: Evidence, blocks: Sequence[Block]) -> list[Terms]:
    """Term `outlier_mass` of each block: share of the model's outlier mass per layer."""
    assert evidence.deltas is not None
    squared = robust_distances(evidence.deltas)
    excess = np.maximum(squared - np.median(squared), 0.0)
    if excess.sum() <= 0:
        return [{"outlier_mass": "no layer is an outlier"} for _ in blocks]
    share = excess / excess.sum()
    return [{"outlier_mass": float(share[block.start : block.stop].mean())} for block in blocks]


def robust_distances(points: Floats) -> Floats:
    """(N,) squared robust Mahalanobis distances of (N, D) points."""
    count, dimensions = points.shape
    # Distances only depend on inner products, so N coordinates replace the D dimensions.
    shifted = points - np.median(points, axis=0)
    left, singular, _ = np.linalg.svd(shifted, full_matrices=False)
    rows = left * singular  # (N, min(N, D))
    keep = np.arange(count)
    size = max(2, int(np.ceil(KEPT * count)))
    squared = (rows**2).sum(axis=1)
    for _ in range(STEPS):
        closest = np.sort(np.argsort(squared, kind="stable")[:size])
        if np.array_equal(closest, keep):
            break
        keep = closest
        squared = _distances(rows, rows[keep], dimensions)
    return np.asarray(squared)


def _distances(rows: Floats, sample: Floats, dimensions: int) -> Floats:
    """Squared distances of rows to the mean of a sample under its shrunk covariance."""
    centre = sample.mean(axis=0)
    centred = sample - centre
    covariance = centred.T @ centred / len(sample)
    share = shrinkage(centred, covariance, dimensions)
    level = max(np.trace(covariance) / dimensions, 1e-30)
    values, vectors = np.linalg.eigh(covariance)
    spread = np.maximum((1 - share) * np.maximum(values, 0.0) + share * level, 1e-12 * level)
    return np.asarray((((rows - centre) @ vectors) ** 2 / spread).sum(axis=1))


def shrinkage(centred: Floats, covariance: Floats, dimensions: int) -> float:
    """The r of Ledoit and Wolf (2004, Lemma 3.4), in 0..1.

    Args:
        centred: (n, k) sample around its mean, in coordinates of its span.
        covariance: (k, k) its covariance with division by n.
        dimensions: of the space the points live in, at least k.
    """
    count = len(centred)
    level = np.trace(covariance) / dimensions
    square = (covariance**2).sum()
    spread = square / dimensions - level**2
    noise = (((centred**2).sum(axis=1) ** 2).sum() / count - square) / (count * dimensions)
    return float(np.clip(noise / spread, 0.0, 1.0)) if spread > 0 else 1.0


MAHALANOBIS = Scorer(
    key="mahalanobis",
    title="the mean change of its layers is an outlier",
    reference="Ledoit and Wolf (2004), doi 10.1016/S0047-259X(03)00096-4",
    needs="deltas",
    circuit="magnitude",
    terms=mahalanobis_terms,
)
