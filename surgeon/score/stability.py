"""Stability: layers where the representation has stopped changing abruptly.

CircuitProbe, arXiv 2604.00716 (released program, `stability`). With c_l the representation
change, v_l the cross-example variance, d_i = |c_{i+1} - c_i| and g_i = v_i / max(v_{i-1},
1e-10), a block s:e of N layers scores 1.5 A + B + C + 0.5 z(representation_rank):

    A = -(mean_{i in s..e-1} d_i - mean d) / (std d + 1e-10)                    if e < N
    B = -(|mean_{i in s..e-1} g_i - m| - mean |g - m|) / (std |g - m| + 1e-10)  if 0 < s, e < N
    C = max(0, 1 - mean_{s..e-1} c / p), p = mean of c over s-3..s-1            if s > 2, p > 0

with m the median of all g and population standard deviations. Blocks that lack a term are
ranked by the reference program on the terms they have; here they are not ranked.
"""

from collections.abc import Sequence

import numpy as np

from surgeon.block import Block
from surgeon.score.base import Evidence, Scorer, Terms, zscore_term
from surgeon.stats import Floats, LayerStats

_LOOK_BACK = 3


def stability_terms(evidence: Evidence, blocks: Sequence[Block]) -> list[Terms]:
    """Terms `gradient` (1.5 A), `growth` (B), `drop` (C) and `rank` (0.5 z) of each block."""
    assert evidence.layers is not None
    stats = evidence.layers
    return [_terms(stats, block) for block in blocks]


def _terms(stats: LayerStats, block: Block) -> Terms:
    change = stats.row("representation_change")
    variance = stats.row("cross_example_variance")
    gradient = _gradient(change, block)
    return {
        "gradient": gradient if isinstance(gradient, str) else 1.5 * gradient,
        "growth": _growth(variance, block),
        "drop": _drop(change, block),
        "rank": zscore_term(stats, "representation_rank", block, 0.5),
    }


def _gradient(change: Floats, block: Block) -> float | str:
    if block.stop == len(change):
        return "the block ends at the last layer, where the change has no next one"
    step = np.abs(np.diff(change))  # (N - 1,)
    inside = step[block.start : block.stop].mean()
    return float(-(inside - step.mean()) / (step.std() + 1e-10))


def _growth(variance: Floats, block: Block) -> float | str:
    if block.stop == len(variance):
        return "the block ends at the last layer, where the change has no next one"
    if block.start == 0:
        return "the block starts at layer 0, where the variance has no growth"
    growth = variance[1:] / np.maximum(variance[:-1], 1e-10)  # growth[i - 1] belongs to layer i
    median = np.median(growth)
    away = np.abs(growth - median)
    inside = abs(growth[block.start - 1 : block.stop - 1].mean() - median)
    return float(-(inside - away.mean()) / (away.std() + 1e-10))


def _drop(change: Floats, block: Block) -> float | str:
    if block.start < _LOOK_BACK:
        return f"fewer than {_LOOK_BACK} layers come before the block"
    before = change[block.start - _LOOK_BACK : block.start].mean()
    if before <= 0:
        return "nothing changes in the layers before the block"
    return float(max(0.0, 1.0 - change[block.start : block.stop].mean() / before))


STABILITY = Scorer(
    key="stability",
    title="the representation changes steadily after a region of strong change",
    reference="arXiv 2604.00716 (CircuitProbe), stability score",
    needs="layers",
    circuit="stability",
    terms=stability_terms,
    in_reference=True,
)
