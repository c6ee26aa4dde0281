"""Boundary: layers that agree with each other and differ from what is around them.

CircuitProbe, arXiv 2604.00716 (released program, `boundary`). With f_l the forward
similarity of layer l, cos of its mean output and that of layer l + 1, a block s:e scores

    mean of f_s .. f_{e-2}  +  1/2 (1 - f_{s-1})  if s > 0  +  1/2 (1 - f_{e-1})  if e < N

The program takes f from the first prompt alone; the default here is the mean over prompts.
"""

from collections.abc import Sequence

import numpy as np

from surgeon.block import Block
from surgeon.score.base import Evidence, Scorer, Terms
from surgeon.stats import LayerStats


def boundary_terms(evidence: Evidence, blocks: Sequence[Block]) -> list[Terms]:
    """Terms `inside`, `before` and `after` of each block."""
    assert evidence.layers is not None
    return [_terms(evidence.layers, block) for block in blocks]


def _terms(stats: LayerStats, block: Block) -> Terms:
    similar = stats.row("forward_similarity")
    if np.isnan(similar[:-1]).any():
        return {"inside": stats.why_missing("forward_similarity")}
    inside = similar[block.start : block.stop - 1]
    return {
        "inside": float(inside.mean()) if len(inside) else 0.0,
        "before": float(0.5 * (1.0 - similar[block.start - 1]))
        if block.start > 0
        else "the block starts at layer 0: no layer before it",
        "after": float(0.5 * (1.0 - similar[block.stop - 1]))
        if block.stop < stats.depth
        else "the block ends at the last layer: no layer after it",
    }


BOUNDARY = Scorer(
    key="boundary",
    title="similar layers inside, different ones around",
    reference="arXiv 2604.00716 (CircuitProbe), boundary score",
    needs="layers",
    circuit="boundary",
    terms=boundary_terms,
    in_reference=True,
)
